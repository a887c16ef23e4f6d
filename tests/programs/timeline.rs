//! `coordinator timeline`: a run as swim lanes, in the terminal, as a page, and as a trace.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use crate::browser::{chromium, dom, text_of};
use crate::programs::{FinishedProgram, MODES, ProgramDir, how, kill, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// A run in which a worker is killed in the midst.
fn with_a_death(place: &ProgramDir) -> (FinishedProgram, u32) {
    let args = ["-e", "-l", "150", "-s", "ERROR", "-w", "2", "-m", "20", "--retries", "2"];
    let run = place.start(&[&args[..], &["--json"]].concat());
    wait_until("half is done", || run.stdout().lines().count() > 70);
    let killed = run.workers(2)[1];
    kill(killed, Signal::KILL);
    (run.wait(), killed)
}

/// The events of a trace of the latest run.
fn trace(place: &ProgramDir) -> Vec<Value> {
    let ran = place.run(&["timeline", "--trace", "-"]).expect(0);
    let trace: Value = serde_json::from_str(&ran.stdout).unwrap();
    trace["traceEvents"].as_array().unwrap().clone()
}

#[test]
fn a_trace_has_each_task_once_in_a_lane_of_its_own() {
    for mode in MODES {
        let place = ProgramDir::new();
        let ran = place.run(&[&["a", "b", "--json"], &how(mode, "2", "8")[..]].concat()).expect(0);
        let events = trace(&place);
        let mut lanes = BTreeMap::<(u64, u64), Vec<(u64, u64)>>::new();
        let mut fates = BTreeMap::<&str, usize>::new();
        for bar in events.iter().filter(|event| event["ph"] == "X") {
            let number = |name: &str| bar[name].as_u64().unwrap_or_else(|| panic!("{name}: {bar}"));
            let (begin, length) = (number("ts"), number("dur"));
            lanes.entry((number("pid"), number("tid"))).or_default().push((begin, begin + length));
            *fates.entry(bar["cat"].as_str().unwrap()).or_default() += 1;
            assert_eq!(bar["name"].as_str().unwrap().len(), 2, "{bar}");
        }
        let [ok, not_found, error] = ran.summary().counts();
        assert_eq!([fates["ok"], fates["not_found"], 0], [ok, not_found, error]);
        let most = if mode == "sequential" { 1 } else { 8 };
        assert!((1..=most).contains(&lanes.len()), "{mode}: {}", lanes.len());
        for bars in lanes.values_mut() {
            bars.sort_unstable();
            assert!(bars.is_sorted_by(|a, b| a.1 <= b.0), "{mode}: {bars:?}");
        }
        let named: Vec<_> = events.iter().filter(|event| event["name"] == "thread_name").collect();
        assert!(named.len() >= lanes.len(), "{mode}");
    }
}

#[test]
fn a_death_and_what_it_cost_are_drawn_everywhere() {
    let place = ProgramDir::new();
    let (ran, killed) = with_a_death(&place);
    let summary = place.run(&["logs", "--summary", "--json"]).expect(0).json().pop().unwrap();
    let rows = summary["summary"]["processes"].as_array().unwrap().clone();
    let lost: u64 = rows.iter().map(|row| row["lost"].as_u64().unwrap()).sum();
    let runs: u64 = rows.iter().map(|row| row["runs"].as_u64().unwrap()).sum();
    assert!(lost > 0 && runs >= 150 + lost, "{rows:?}");

    let events = trace(&place);
    let count =
        |name: &str, value: &str| events.iter().filter(|it| it[name] == value).count() as u64;
    assert_eq!(count("ph", "X"), runs);
    assert_eq!((count("cat", "lost"), count("cat", "death")), (lost, 1));
    let death = events.iter().find(|event| event["cat"] == "death").unwrap();
    assert_eq!(death["pid"], killed);
    assert!(death["name"].as_str().unwrap().contains("signal 9 (SIGKILL)"), "{death}");

    let ran_again = place.run(&["timeline"]).expect(0);
    let text = &ran_again.stdout;
    let [ok, not_found, _] = ran.summary().counts();
    assert!(text.contains(&format!(": {ok} ok, {not_found} not found, ")), "{text}");
    let died = format!("(pid {killed}) ended with signal 9 (SIGKILL) after ");
    assert!(text.contains(&died) && text.contains(&format!("with {lost} task")), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    // Three processes have their lanes, and the last line tells of the one that died.
    let of_workers = text.lines().filter(|line| line.starts_with("worker ")).count();
    assert_eq!(of_workers, 3 + 1, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");

    let Some(browser) = chromium() else { return };
    place.run(&["timeline", "--html", "run.html"]).expect(0);
    let url = format!("file://{}", place.path("run.html").display());
    let page = dom(&browser, &place, &url, &[]);
    let counts = text_of(&page, "counts");
    let [ok, not_found, error] = ran.summary().counts();
    let told = format!("{ok} ok {not_found} not found {error} errors {lost} lost runs");
    assert!(counts.starts_with(&told), "{counts} is not {told}");
    assert!(page.contains(&format!("aria-label=\"{runs} tasks in ")), "{page}");
    assert!(text_of(&page, "workers").contains("signal 9 (SIGKILL)"), "{page}");
    let legend = text_of(&page, "legend");
    for told in ["lost with its worker", "tried again", "✕ the worker died"] {
        assert!(legend.contains(told), "{legend}");
    }
    assert_eq!(text_of(&page, "slow").matches(" s ").count(), 10, "{}", text_of(&page, "slow"));
}

#[test]
fn a_task_that_ran_for_too_long_is_marked_as_such() {
    let place = ProgramDir::new();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = format!("http://{}/flags", silent.local_addr().unwrap());
    let args = ["br", "-s", &server, "--timeout", "100", "--task-timeout", "0.2", "-w", "1"];
    place.run(&[&args[..], &["--retries", "1", "--mode", "processes"]].concat()).expect(1);
    let drawn = place.run(&["timeline"]).expect(0).stdout;
    assert!(drawn.contains("! ran for too long"), "{drawn}");
    assert_eq!(drawn.matches("with 1 task at work: BR ran for too long\n").count(), 2, "{drawn}");
    let late = trace(&place).iter().filter(|event| event["args"]["timed_out"] == true).count();
    assert_eq!(late, 2);
    place.run(&["timeline", "--html", "run.html"]).expect(0);
    let page = fs::read_to_string(place.path("run.html")).unwrap();
    assert_eq!(page.matches("\"l\":true").count(), 2);
}

#[test]
fn the_page_needs_no_network_and_obeys_keys_and_pointer() {
    let place = ProgramDir::new();
    place.run(&["b", "--mode", "threads", "-m", "4"]).expect(0);
    place.run(&["timeline", "--html", "run.html"]).expect(0);
    let page = fs::read_to_string(place.path("run.html")).unwrap();
    for outside in ["http://", "https://", "src=", "url(", "@import", "@STYLE@", "@DATA@"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("default-src 'none'"));
    let Some(browser) = chromium() else { return };
    let acted = |hash: &str, script: &str| {
        let acting = page.replace("</body>", &format!("<script>{script}</script></body>"));
        fs::write(place.path("acting.html"), acting).unwrap();
        let url = format!("file://{}{hash}", place.path("acting.html").display());
        dom(&browser, &place, &url, &[])
    };
    let press =
        "const press = (key) => byId('lanes').dispatchEvent(new KeyboardEvent('keydown', {key}));";
    let shown = acted("#br", "");
    assert!(text_of(&shown, "details").starts_with("BR: ok, "), "{shown}");
    let keys = format!(
        "{press} for (const key of ['ArrowRight', 'ArrowDown', 'End', '+', 'ArrowLeft']) press(key);"
    );
    let walked = acted("", &keys);
    let details = text_of(&walked, "details");
    assert!(details.contains("thread 1 (pid "), "{details}");
    let hover = "const box = byId('lanes').getBoundingClientRect(), first = run.lanes[0].bars[0];\
        byId('lanes').dispatchEvent(new PointerEvent('pointermove', {pointerType: 'mouse',\
        clientX: box.left + run.x((first.b + first.e) / 2), clientY: box.top + 8}));\
        byId('what').textContent = first.c;";
    let hovered = acted("", hover);
    let code = text_of(&hovered, "what");
    assert!(text_of(&hovered, "tip").starts_with(&format!("{code}: ")), "{hovered}");
    let zoom = format!(
        "{press} press('+'); press('+'); const {{from, to}} = run.span(); press('0');\
        byId('what').textContent = Math.round(100 * (to - from) / (run.span().to - run.span().from));"
    );
    assert_eq!(text_of(&acted("", &zoom), "what"), "25");
    // Four threads at most, and no more than the tasks need.
    let at_a_time = "byId('what').textContent = byId('pool-section').hidden + ' ' + run.charts.samples.length + ' ' +\
        Math.ceil(Math.max(...run.charts.samples.map((it) => it.running)) - 1e-6);";
    let told = text_of(&acted("", at_a_time), "what");
    assert!(["1", "2", "3", "4"].iter().any(|most| told == format!("false 400 {most}")), "{told}");
    // Of many lanes only those in sight are drawn, and processes without tasks have one row together.
    let many = "const {parties, summary} = run.picture; for (let worker = 0; worker < 300; worker++) {\
        parties.push({...parties[0], name: 'worker ' + worker, worker, pid: worker, slots: 1});\
        summary.processes.push({...summary.processes[0], name: 'worker ' + worker, pid: worker, runs: 0, is_regular: true}); }\
        let drawn = 0; const drawLane = run.drawLane; run.drawLane = function (...all) { drawn++; drawLane.apply(run, all); };\
        run.merge(run.picture); run.drawNow(); byId('what').textContent = run.lanes.length + ' ' + (drawn > 4 && drawn < 200);";
    let told = acted("", many);
    assert_eq!(text_of(&told, "what"), "304 true");
    let workers = text_of(&told, "workers");
    assert!(workers.ends_with("and 300 more processes, which ran no task"), "{workers}");
}

#[test]
fn the_page_escapes_every_text_of_the_log() {
    let place = ProgramDir::new();
    place.run(&["br", "--mode", "sequential"]).expect(0);
    let evil = r#"</script><script>document.title='owned'</script>"#;
    let mut files = place.files("logs/latest").into_iter();
    let (name, bytes) = files.next().unwrap();
    let text = String::from_utf8(bytes)
        .unwrap()
        .replace("LOCAL", evil)
        .replace("\"BR\"", &format!("\"{evil}\""));
    fs::write(place.path("logs/latest").join(name), text).unwrap();
    let page = place.run(&["timeline", "--html", "-"]).expect(0).stdout;
    assert!(!page.contains("<script>document"), "{page}");
    place.run(&["timeline"]).expect(0);
    let Some(browser) = chromium() else { return };
    fs::write(place.path("run.html"), page).unwrap();
    let page = dom(&browser, &place, &format!("file://{}", place.path("run.html").display()), &[]);
    assert!(page.contains("· procession</title>"), "{page}");
    assert!(text_of(&page, "what").contains("document.title='owned'"), "{page}");
}

#[test]
fn logs_without_tasks_or_of_a_killed_run_are_drawn_as_far_as_they_go() {
    let place = ProgramDir::new();
    let run = place.start(&["-a", "-s", "DELAY", "-w", "2", "-m", "8", "--json"]);
    run.wait_for_stdout("\n");
    let goes_on = place.run(&["timeline"]).expect(0);
    assert!(goes_on.stdout.contains(" runs") && goes_on.stderr.is_empty(), "{goes_on:#?}");
    drop(run);
    wait_until("it is over", || place.run(&["timeline"]).stderr.contains("left no last line"));
    let told = place.run(&["timeline"]).expect(0).stdout;
    // What was at work was lost, or failed when the embedded server was gone.
    assert!(told.contains("not done") && !told.contains(" runs"), "{told}");
    let numbers = place.run(&["logs", "--summary"]).expect(0).stdout;
    let all = numbers.lines().find(|line| line.starts_with("all ")).unwrap();
    assert!(all.trim_end().ends_with('?'), "nobody knows the CPU time: {numbers}");
    for entry in place.path("logs/latest").read_dir().unwrap().flatten() {
        fs::write(entry.path(), "").unwrap();
    }
    let empty = place.run(&["timeline"]).expect(0).stdout;
    assert!(empty.contains("No task has begun."), "{empty}");
    for option in ["--html", "--trace"] {
        place.run(&["timeline", option, "empty"]).expect(0);
        assert!(place.path("empty").metadata().unwrap().len() > 100);
        let refused = place.run(&["timeline", option, "no/where"]).expect(3);
        assert!(refused.stderr.contains("cannot write no/where"), "{refused:?}");
    }
    let mixed = place.run(&["timeline", "--html", "-", "--trace", "-"]).expect(2);
    assert!(mixed.stderr.contains("different places") && mixed.stdout.is_empty(), "{mixed:?}");
}

#[test]
fn a_mark_of_a_retry_stands_behind_the_name() {
    let place = ProgramDir::new();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/a-file-with-a-name.txt", silent.local_addr().unwrap());
    let args = ["fetch", &url, "--timeout", "0.2", "--retries", "1", "--mode", "sequential"];
    place.run(&args).expect(1);
    let drawn = place.run(&["timeline"]).expect(0).stdout;
    assert!(drawn.contains("a-file-with-a-name.txt"), "{drawn}");
    assert!(drawn.contains('\u{21bb}'), "{drawn}");
}
