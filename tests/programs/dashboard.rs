//! `--dashboard`: a live page of a run, for this machine only.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use crate::browser::{chromium, dom, text_of};
use crate::programs::{MODES, PATIENCE, ProgramDir, RunningProgram, how, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// The port that a program says it shows its page on.
fn port(run: &RunningProgram) -> u16 {
    let told = || {
        let stderr = run.stderr();
        let url = stderr.lines().find_map(|line| line.strip_prefix("dashboard: "))?.to_owned();
        url.strip_prefix("http://localhost:")?.strip_suffix('/')?.parse().ok()
    };
    wait_until("it tells its address", || told().is_some());
    told().unwrap()
}

/// Asks for a path, and reads the answer to its end.
fn get(port: u16, path: &str, host: &str) -> String {
    answer(ask(port, path, host))
}

fn ask(port: u16, path: &str, host: &str) -> TcpStream {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    // In this version, answers end with their connection.
    write!(server, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
    server
}

fn answer(mut server: TcpStream) -> String {
    let mut answer = Vec::new();
    // The end may come as a broken connection.
    let _ = server.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// The pictures among the events.
fn pictures(events: &str) -> Vec<Value> {
    let data = events.lines().filter_map(|line| line.strip_prefix("data: {\"anew\""));
    data.map(|rest| serde_json::from_str(&format!("{{\"anew\"{rest}")).unwrap()).collect()
}

/// The bars of all pictures together, by their numbers.
fn bars(pictures: &[Value]) -> BTreeMap<u64, Value> {
    let bars = pictures.iter().flat_map(|picture| picture["bars"].as_array().unwrap());
    bars.map(|bar| (bar["i"].as_u64().unwrap(), bar.clone())).collect()
}

#[test]
fn the_page_shows_the_progress_of_a_run_and_its_summary() {
    for mode in MODES {
        let place = ProgramDir::new();
        let args = [&["a", "b", "c", "-s", "DELAY"], &how(mode, "2", "40")[..]].concat();
        // One after the other, few must do.
        let few = if mode == "sequential" { &["-l", "4"][..] } else { &[] };
        let run = place.start(&[&args[..], few, &["--dashboard", "--json"]].concat());
        let port = port(&run);
        let front = get(port, "/", "localhost");
        assert!(front.starts_with("HTTP/1.0 200 OK") && front.contains("EventSource"), "{front}");
        let listener = thread::spawn(move || get(port, "/events", "127.0.0.1"));
        let ran = run.wait().expect(0);
        let events = listener.join().unwrap();
        let pictures = pictures(&events);
        let [first, .., last] = &pictures[..] else { panic!("{}", pictures.len()) };
        assert_eq!((&first["anew"], &first["is_over"]), (&true.into(), &false.into()));
        assert_eq!((&last["anew"], &last["is_over"]), (&false.into(), &true.into()));
        assert!(events.contains("event: end\n"));
        let told = ["ok", "not_found", "error"].map(|name| last["summary"][name].as_u64().unwrap());
        assert_eq!(told.map(|number| number as usize), ran.summary().counts());
        let bars = bars(&pictures);
        assert_eq!(bars.len(), ran.json().len() - 1);
        assert!(bars.values().all(|bar| bar["f"] == "ok" || bar["f"] == "not_found"), "{bars:?}");
    }
}

#[test]
fn a_browser_shows_the_page_while_the_run_is_in_progress() {
    let Some(browser) = chromium() else { return };
    let place = ProgramDir::new();
    let run = place.start(&["-a", "-s", "DELAY", "-w", "2", "-m", "4", "--dashboard", "--json"]);
    let url = format!("http://localhost:{}/", port(&run));
    run.wait_for_stdout("\n");
    let page = dom(&browser, &place, &url, &[]);
    assert_eq!(text_of(&page, "state"), "It goes on.");
    assert!(text_of(&page, "counts").contains(" to do"), "{page}");
    assert!(text_of(&page, "workers").contains("worker 1"), "{page}");
}

#[test]
fn only_this_machine_has_access_unless_two_options_allow_others() {
    let place = ProgramDir::new();
    for (args, code, told) in [
        (
            &["--dashboard", "0.0.0.0:0"][..],
            2,
            "must be of loopback, such as 127.0.0.1, not 0.0.0.0",
        ),
        (&["--dashboard", "[::]:0"], 2, "add --dashboard-public"),
        (&["--dashboard", "br"], 2, "--dashboard ADDR must be a port or an address"),
        (&["--dashboard-public", "br"], 2, "--dashboard [<ADDR>]"),
        (&["--dashboard", "--no-logs"], 2, "cannot be used with --no-logs"),
        (&["serve", "--dashboard", "0.0.0.0:0"], 2, "add --dashboard-public"),
        (&["compare", "br", "--dashboard", "0.0.0.0:0"], 2, "add --dashboard-public"),
    ] {
        let ran = place.run(args).expect(code);
        assert!(ran.stderr.contains(told), "{ran:?}");
    }
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port_taken = taken.local_addr().unwrap().port().to_string();
    let ran = place.run(&["br", "--dashboard", &port_taken]).expect(3);
    assert!(ran.stderr.contains("cannot open the dashboard on 127.0.0.1:"), "{ran:?}");
    place.run(&["br", "--dashboard", "0.0.0.0:0", "--dashboard-public"]).expect(0);

    let run = place.start(&["-a", "-s", "DELAY", "-w", "2", "--dashboard", "--json"]);
    let port = port(&run);
    // Through a name that a stranger has pointed here.
    for path in ["/", "/events"] {
        let refused = get(port, path, "evil.example:80");
        assert!(refused.starts_with("HTTP/1.0 403"), "{refused}");
    }
    assert!(get(port, "/", "[::1]:80").starts_with("HTTP/1.0 200"));
    assert!(get(port, "/nowhere", "localhost").starts_with("HTTP/1.0 404"));
}

#[test]
fn what_hangs_is_seen_to_hang() {
    let place = ProgramDir::new();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = format!("http://{}/flags", silent.local_addr().unwrap());
    for mode in MODES {
        let args = ["br", "cn", "-s", &server, "--timeout", "100", "--mode", mode];
        let run = place.start(&[&args[..], &["--dashboard"]].concat());
        let port = port(&run);
        let mut events = BufReader::new(ask(port, "/events", "localhost"));
        let (mut line, mut now) = (String::new(), 0.0);
        while now < 2_000.0 {
            line.clear();
            assert!(events.read_line(&mut line).unwrap() > 0, "it ended at {now} ms");
            for picture in pictures(&line) {
                now = picture["now"].as_f64().unwrap();
            }
        }
        let front = get(port, "/", "localhost");
        assert!(front.contains("\"f\":\"running\""), "{front}");
        let told = place.run(&["logs", "--summary", "--json"]).expect(0).json();
        let longest = told[0]["summary"]["slowest"][0]["ms"].as_f64();
        assert!(longest > Some(1_000.0), "{told:?}");
    }
}

#[test]
fn a_comparison_shows_each_of_its_runs() {
    let place = ProgramDir::new();
    let modes = ["--modes", "threads:3,processes:2", "--runs", "2", "--warmup", "0"];
    let args = ["compare", "br", "cn", "us", "zz", "-s", "DELAY", "--dashboard"];
    let compare = place.start(&[&args[..], &modes].concat());
    let events = get(port(&compare), "/events", "localhost");
    let ran = compare.wait().expect(0);
    assert!(events.contains("event: end\n"), "{ran:?}");
    let pictures = pictures(&events);
    let mut shown = Vec::new();
    for run in pictures.chunk_by(|one, next| one["name"] == next["name"]) {
        let last = run.last().unwrap();
        if last["name"] == "procession" {
            continue; // None has begun.
        }
        let counts = ["ok", "not_found", "error"].map(|name| last["summary"][name].as_u64());
        assert_eq!(counts, [3, 1, 0].map(Some), "{last}");
        assert_eq!(last["report"]["exit_code"], 0, "{last}");
        shown.push(last["name"].as_str().unwrap().to_owned());
    }
    let all = ["run 1 of threads:3", "run 1 of processes:2", "run 2 of threads:3"];
    // The first is over if the page is asked for late.
    assert!(shown.ends_with(&[all[1], all[2], "run 2 of processes:2"].map(str::to_owned)));
    assert!(shown.len() <= 4 && pictures.last().unwrap()["is_over"] == true, "{shown:?}");
    assert!(!place.path("logs").exists() && !place.path("downloads").exists());
}

#[test]
fn a_comparison_of_other_work_shows_its_runs_as_tasks() {
    let place = ProgramDir::new();
    let args = ["compare", "--task", "sleep", "--jobs", "2", "--size", "100", "--workers", "1"];
    let compare = place.start(&[&args[..], &["--runs", "2", "--dashboard"]].concat());
    let events = get(port(&compare), "/events", "localhost");
    compare.wait().expect(0);
    let pictures = pictures(&events);
    let last = &pictures.last().unwrap()["summary"];
    let lane = |name: &str| {
        let lanes = last["processes"].as_array().unwrap();
        lanes.iter().find(|lane| lane["name"] == name).unwrap_or_else(|| panic!("{name}: {last}"))
    };
    for mode in ["sequential", "threads:1", "processes:1"] {
        // A warm-up and two runs; then a warm-up and five for the price of a task.
        assert_eq!((&lane(mode)["ok"], &lane(mode)["how"]), (&9.into(), &"ended".into()));
    }
}

#[test]
fn the_servers_show_their_requests() {
    let place = ProgramDir::new();
    let args = ["serve", "--local-port", "0", "--delay-port", "0", "--error-port", "0"];
    let serve = place.start(&[&args[..], &["--dashboard"]].concat());
    let port = port(&serve);
    serve.wait_for_stdout("ERROR site");
    let url = serve
        .stdout()
        .lines()
        .find_map(|line| line.strip_prefix("LOCAL site: ").map(str::to_owned));
    place.run(&["br", "zz", "-s", &url.unwrap()]).expect(0);
    let events = ask(port, "/events", "localhost");
    let listener = thread::spawn(move || answer(events));
    wait_until("the page shows them", || get(port, "/", "localhost").contains("\"c\":\"ZZ\""));
    serve.signal(Signal::TERM);
    serve.wait().expect(0);
    let pictures = pictures(&listener.join().unwrap());
    let bars = bars(&pictures);
    let mut shown: Vec<_> = bars.values().map(|bar| (bar["c"].clone(), bar["f"].clone())).collect();
    shown.sort_by_key(|(code, _)| code.to_string());
    assert!(bars.values().all(|bar| bar["b"].as_f64() >= Some(0.0)), "{bars:?}");
    let expected =
        [("BR", "ok"), ("ZZ", "not_found")].map(|(c, f)| (Value::from(c), Value::from(f)));
    assert_eq!(shown, expected);
    assert_eq!(pictures.last().unwrap()["summary"]["processes"][0]["name"], "LOCAL");
}
