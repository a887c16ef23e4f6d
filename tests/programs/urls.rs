//! `coordinator fetch`: the files of any URLs, by the same job as the flags.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::programs::{MODES, ProgramDir, how};
use crate::scripted_server::{Response, ScriptedServer};

fn answer(status: &str, headers: &str, body: &str) -> Response {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n");
    Response::Answer((head + body).into_bytes())
}

/// A server with a text at each path, except paths that begin with `/missing` or `/broken`.
fn server() -> ScriptedServer {
    ScriptedServer::start(|_, path| match path {
        path if path.starts_with("/missing") => answer("404 Not Found", "", "no"),
        path if path.starts_with("/broken") => answer("503 Service Unavailable", "", "no"),
        path => answer("200 OK", "", &format!("the text of {path}")),
    })
}

fn texts(place: &ProgramDir, dest: &str) -> BTreeMap<String, String> {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    place.files(dest).into_iter().map(|(name, bytes)| (name, text(bytes))).collect()
}

#[test]
fn each_mode_fetches_any_urls_into_the_files_that_the_list_names() {
    let server = server();
    let base = server.base();
    let place = ProgramDir::new();
    let list = format!(
        "# pictures\n{base}/a.png?size=3\n\n{base}/b\tsub/b.txt\n{base}/missing\r\n{base}/broken x y\n"
    );
    let list = place.file("urls.txt", list);
    for mode in MODES {
        let how = how(mode, "2", "2");
        let ran = place.run(&[&["fetch", "-i", &list, "-d", mode, "--json"], &how[..]].concat());
        let summary = ran.expect(1);
        let lines = summary.json();
        let summary = summary.summary();
        assert_eq!(summary.counts(), [2, 1, 1], "{mode}");
        assert_eq!(summary.all["server"], base);
        let line = |code: &str| lines.iter().find(|line| line["code"] == code).unwrap();
        let saved = line("sub/b.txt");
        assert_eq!(saved["url"], format!("{base}/b"));
        let path = place.path(mode).join("sub/b.txt");
        assert_eq!(Path::new(saved["path"].as_str().unwrap()), path);
        assert_eq!(line("x y")["error"], "HTTP 503 - Service Unavailable");
        assert_eq!((&line("missing")["http"], line("missing").get("path")), (&404.into(), None));
        assert_eq!(
            texts(&place, mode),
            [("a.png".into(), "the text of /a.png?size=3".into())].into()
        );
        assert_eq!(texts(&place, &format!("{mode}/sub"))["b.txt"], "the text of /b");
    }
}

#[test]
fn the_report_says_where_the_files_are_and_names_what_is_not_there() {
    let server = server();
    let place = ProgramDir::new();
    let missing = (0..12).map(|n| format!("{}/missing{n:02}", server.base()));
    let urls: Vec<_> = missing.chain([format!("{}/a", server.base())]).collect();
    let args: Vec<_> =
        ["fetch", "-d", "new/dir"].into_iter().chain(urls.iter().map(|url| &**url)).collect();
    let ran = place.run(&args).expect(0);
    let missing: Vec<_> = (0..10).map(|n| format!("missing{n:02}")).collect();
    let expected = format!(
        "1 file downloaded.\n12 not found: {} and 2 more\nSaved in: new/dir\nElapsed",
        missing.join(" ")
    );
    assert!(ran.stdout.contains(&expected), "{ran:?}");
    assert!(
        ran.stdout.starts_with(&format!("URLs of {}\nSearching for 13 files: ", server.base()))
    );
}

#[test]
fn urls_come_from_standard_input_and_from_arguments_as_well() {
    let server = server();
    let base = server.base();
    let place = ProgramDir::new();
    let (argument, input) = (format!("{base}/a"), format!("{base}/b\n{base}/x/a\n{base}/b\n"));
    let ran = place.run_with_input(&["fetch", &argument, "-i", "-"], &input).expect(0);
    let files: Vec<_> = texts(&place, "downloads").into_keys().collect();
    assert_eq!(files, ["a", "a-2", "b"]);
    for told in [
        "coordinator: standard input, line 3: the same URL as in standard input, line 1, fetched once\n",
        "coordinator: standard input, line 2: a is taken, so the file is a-2\n",
    ] {
        assert!(ran.stderr.contains(told), "{ran:?}");
    }
}

#[test]
fn wrong_lines_are_told_with_their_numbers_before_anything_is_fetched() {
    let server = server();
    let base = server.base();
    let place = ProgramDir::new();
    let list = format!("{base}/a\nftp://example.org/b\n{base}/c ../c\n{base}/d x\n{base}/e x\n");
    let list = place.file("urls.txt", list);
    let ran = place.run(&["fetch", "-i", &list]).expect(2);
    for line in [
        "urls.txt, line 2: \"ftp://example.org/b\" is no correct URL of the form http",
        "urls.txt, line 3: the name \"../c\" must be that of a file in the destination",
        "urls.txt, line 5: the name x is also that of urls.txt, line 4",
    ] {
        assert!(ran.stderr.contains(line), "{ran:?}");
    }
    assert!(
        server.seen().is_empty()
            && !place.path("downloads").exists()
            && !place.path("logs").exists()
    );
    for (args, told) in [
        (&["fetch"][..], "there is no URL: give URLs"),
        (&["fetch", "-i", "/dev/null"], "there is no URL in /dev/null"),
        (
            &["fetch", "urls.txt"],
            "urls.txt is a file, not a URL: to fetch the URLs in it, write -i urls.txt",
        ),
        (&["fetch", "-i", "nothing.txt"], "--input FILE must be readable text: nothing.txt"),
        (
            &["fetch", "http://user:secret@localhost/"],
            "a user name in a URL would stand in the logs",
        ),
        (&["fetch", "http://localhost/", "--resume"], "cannot be used with"),
        (&["fetch", "http://localhost/", "--header", "x"], "--header HEADER must be like"),
        (&["fetch", "http://localhost/", "--rate", "0"], "--rate N must be"),
    ] {
        let ran = place.run(args).expect(2);
        assert!(ran.stderr.contains(told), "{ran:?}");
    }
}

#[test]
fn a_dry_run_prints_names_and_does_nothing() {
    let server = server();
    let base = server.base();
    let place = ProgramDir::new();
    let urls = [format!("{base}/a.png"), format!("{base}/b/a.png")];
    let ran = place.run(&["fetch", "--dry-run", &urls[0], &urls[1]]).expect(0);
    let expected =
        format!("{base}/a.png -> downloads/a.png\n{base}/b/a.png -> downloads/a-2.png\n");
    assert_eq!(ran.stdout, expected);
    let ran = place.run(&["fetch", "--dry-run", "--json", &urls[0]]).expect(0);
    assert_eq!(ran.json()[0]["code"], "a.png");
    assert_eq!(ran.json()[0]["url"], *urls[0]);
    let ran = place.run(&["br", "--dry-run"]).expect(0);
    assert_eq!(ran.stdout, "LOCAL/br/br.gif -> downloads/br.gif\n");
    assert!(
        server.seen().is_empty()
            && !place.path("downloads").exists()
            && !place.path("logs").exists()
    );
}

#[test]
fn what_failed_or_was_left_is_fetched_by_a_later_run() {
    let server = ScriptedServer::start(|number, path| match path {
        "/broken" if number == 0 => answer("503 Service Unavailable", "", ""),
        path => answer("200 OK", "", path),
    });
    let place = ProgramDir::new();
    let base = server.base();
    let rest: String = (2..40).map(|n| format!("{base}/{n}\n")).collect();
    let list = place.file("urls.txt", format!("{base}/broken x/first\n{rest}"));
    let how = ["--mode", "sequential", "--json"];
    let ran = place.run(&[&["fetch", "-i", &list, "--fail-fast"], &how[..]].concat()).expect(1);
    let summary = ran.summary();
    let left = summary.not_done;
    assert!(summary.error == 1 && left > 0, "{ran:?}");
    assert_eq!(summary.all["next"], "coordinator fetch --resume --retry-failed");
    assert!(ran.stderr.contains("coordinator: stopped after 1 error\n"), "{ran:?}");
    // A run of flags is none of URLs.
    let ran = place.run(&["--resume"]).expect(3);
    assert!(ran.stderr.contains("see coordinator fetch --resume"), "{ran:?}");
    let ran = place.run(&["fetch", "--resume", "--json"]).expect(0);
    assert_eq!(ran.summary().counts(), [left, 0, 0]);
    assert_eq!(texts(&place, "downloads")["39"], "/39");
    place.run(&["fetch", "--retry-failed"]).expect(0);
    assert_eq!(texts(&place, "downloads/x")["first"], "/broken");
    let ran = place.run(&["fetch", "--resume", "--retry-failed"]).expect(0);
    assert!(ran.stderr.contains("nothing to do: of 39 files in "), "{ran:?}");
}

#[test]
fn after_the_error_that_ends_a_run_only_what_is_in_flight_is_an_error_as_well() {
    for mode in MODES {
        let server = server();
        let place = ProgramDir::new();
        let urls = (0..300).map(|n| format!("{}/broken{n}\n", server.base()));
        let list = place.file("urls.txt", urls.collect::<String>());
        let most = if mode == "sequential" { 1 } else { 6 };
        let how = how(mode, "2", "6");
        let ran = place.run(&[&["fetch", "-i", &list, "--json", "--fail-fast"], &how[..]].concat());
        let failed = ran.expect(1).summary().error;
        let requests = server.seen().len();
        assert!((1..=most).contains(&failed) && requests <= most, "{mode}: {failed}, {requests}");
        let more = ["--max-errors", "20"];
        let ran = place.run(&[&["fetch", "-i", &list, "--json"], &more[..], &how[..]].concat());
        let failed = ran.expect(1).summary().error;
        assert!((20..20 + most).contains(&failed), "{mode}: {failed}");
    }
}

#[test]
fn a_list_too_long_for_one_line_of_the_log_is_gone_on_with_too() {
    let server = server();
    let place = ProgramDir::new();
    let url = |n| format!("{}/broken{n:04}-{}\n", server.base(), "x".repeat(100));
    let list = place.file("urls.txt", (0..400).map(url).collect::<String>());
    let ran = place.run(&["fetch", "-i", &list, "--max-errors", "3", "--json"]).expect(1);
    let (failed, left) = (ran.summary().error, ran.summary().not_done);
    // Requests in flight at the third error may fail, too.
    assert!((3..100).contains(&failed) && failed + left == 400, "{failed} {left}");
    let listed = place.run(&["logs", "--list"]).expect(0);
    assert!(listed.stdout.contains(&format!("{left}")), "{listed:?}");
    let slowest = |args: &[&str]| {
        let told = place.run(&[&["logs", "--summary"], args].concat()).expect(0).stdout;
        told.split("Slowest tasks\n").nth(1).map(|list| list.lines().count())
    };
    assert_eq!((slowest(&["-n", "2"]), slowest(&[])), (Some(2), Some(failed.min(10))));
    let ran = place.run(&["fetch", "--resume", "--max-errors", "1000", "--json"]).expect(1);
    assert_eq!(ran.summary().error, left);
}

#[test]
fn files_that_have_not_changed_are_left_alone() {
    let server = ScriptedServer::start(|_, path| match path {
        "/same" => answer("304 Not Modified", "etag: \"1\"\r\n", ""),
        path => answer("200 OK", "etag: \"1\"\r\n", path),
    });
    let place = ProgramDir::new();
    let [first, same, other] =
        ["first", "same", "other"].map(|name| format!("{}/{name}", server.base()));
    let list = place.file("urls.txt", format!("{first} same\n"));
    place.run(&["fetch", "-i", &list, "--update"]).expect(0);
    // Another URL for the same file: what is known of it is not of this URL.
    let list = place.file("urls.txt", format!("{other} same\n"));
    place.run(&["fetch", "-i", &list, "--update"]).expect(0);
    assert_eq!(texts(&place, "downloads")["same"], "/other");
    place.run(&["fetch", "-i", &list, "--update"]).expect(0);
    let conditional = |request: &crate::scripted_server::SeenRequest| {
        request.headers.contains(&"if-none-match: \"1\"".to_owned())
    };
    let asked: Vec<_> = server.seen().iter().map(conditional).collect();
    assert_eq!(asked, [false, false, true]);
    let ran = place.run(&["fetch", &same, "--update", "--json"]).expect(1);
    assert_eq!(ran.errors()["same"], "HTTP 304 - Not Modified");
}

#[test]
fn headers_reach_the_server_alone_and_no_log() {
    let other = server();
    let target = format!("location: {}/b\r\n", other.base());
    let server = ScriptedServer::start(move |_, path| match path {
        "/moved" => answer("302 Found", "location: /a\r\n", ""),
        "/away" => answer("302 Found", &target, ""),
        "/broken" => answer("503 Service Unavailable", "", ""),
        path => answer("200 OK", "", path),
    });
    let place = ProgramDir::new();
    let urls = ["moved", "away", "broken"].map(|path| format!("{}/{path}", server.base()));
    let header = ["--header", "X-Key: hush-hush", "--header", "x-other: 1"];
    let args = [&["fetch", &urls[0], &urls[1], &urls[2]], &header[..]].concat();
    place.run(&args).expect(1);
    let has_key = |headers: &[String]| headers.contains(&"x-key: hush-hush".to_owned());
    let seen = server.seen();
    assert!(seen.len() == 4 && seen.iter().all(|request| has_key(&request.headers)), "{seen:?}");
    assert!(
        !other.seen().is_empty() && !other.seen().iter().any(|request| has_key(&request.headers))
    );
    for (name, text) in texts(&place, "logs/latest") {
        assert!(!text.contains("hush-hush"), "{name}: {text}");
    }
    let ran = place.run(&["fetch", "--retry-failed"]).expect(2);
    assert!(
        ran.stderr.contains("the run sent the header X-Key, whose value is in no log"),
        "{ran:?}"
    );
    let file = place.file("headers", "X-Key: hush-hush\n\nX-Other: 2\n");
    place.run(&["fetch", "--retry-failed", "--header", &format!("@{file}")]).expect(1);
    assert!(has_key(&server.seen().pop().unwrap().headers));
}

#[test]
fn a_file_is_whole_and_not_too_large_or_not_there() {
    let server = ScriptedServer::start(|_, path| match path {
        "/cut" => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
            Response::AnswerAndClose(head)
        }
        "/endless" => Response::Endless(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec(),
            vec![b'x'; 10_000],
            Duration::from_millis(1),
        ),
        path => answer("200 OK", "", &path.repeat(1000)),
    });
    let place = ProgramDir::new();
    let urls = ["cut", "endless", "large", "small"].map(|path| format!("{}/{path}", server.base()));
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let ran =
        place.run(&[&["fetch", "--json", "--max-size", "6000"], &urls[..3]].concat()).expect(1);
    let errors = ran.errors();
    assert!(errors["cut"].starts_with("the body was cut short"), "{errors:?}");
    assert_eq!(errors["endless"], "the body is larger than 6000 bytes");
    assert_eq!(place.files("downloads").len(), 1, "{:?}", errors["large"]);
    assert_eq!(place.files("downloads")["large"].len(), 6000);
    let ran = place.run(&["fetch", "--max-size", "1k", urls[3], "--json"]).expect(1);
    assert_eq!(ran.errors()["small"], "the body is larger than 1024 bytes");
    assert_eq!(place.files("downloads").len(), 1);
}

#[test]
fn the_rate_is_that_of_all_processes_together() {
    let server = server();
    let place = ProgramDir::new();
    for mode in MODES {
        let urls: Vec<_> = (0..8).map(|n| format!("{}/{mode}{n}", server.base())).collect();
        let before = server.seen().len();
        let urls = urls.iter().map(String::as_str);
        let args = ["fetch", "--rate", "20"].into_iter().chain(how(mode, "4", "8")).chain(urls);
        place.run(&args.collect::<Vec<_>>()).expect(0);
        let seen = server.seen().split_off(before);
        let times: Vec<_> = seen.iter().map(|request| request.at).collect();
        let span = times[times.len() - 1] - times[0];
        // Seven intervals of 50 ms. The first request may arrive late, and no other early.
        assert!(times.len() == 8 && span >= Duration::from_millis(150), "{mode}: {span:?}");
    }
}

#[test]
fn a_job_log_has_a_line_for_each_file() {
    let server = server();
    let place = ProgramDir::new();
    let urls = ["a", "missing", "broken"].map(|path| format!("{}/{path}", server.base()));
    place.run(&["fetch", "--joblog", "jobs.tsv", &urls[0], &urls[1], &urls[2]]).expect(1);
    let text = std::fs::read_to_string(place.path("jobs.tsv")).unwrap();
    let rows: Vec<Vec<_>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let column = |name| rows[0].iter().position(|head| *head == name).unwrap();
    let (code, status, http) = (column("code"), column("status"), column("http"));
    let told: BTreeMap<_, _> =
        rows[1..].iter().map(|row| (row[code], (row[status], row[http]))).collect();
    let expected =
        [("a", ("ok", "200")), ("missing", ("not_found", "404")), ("broken", ("error", "503"))];
    assert_eq!(told, expected.into());
    let ran = place.run(&["--joblog", "nowhere/jobs.tsv", "br"]).expect(3);
    assert!(ran.stderr.contains("cannot write the job log nowhere/jobs.tsv"), "{ran:?}");
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let unread = place.run(&["--joblog", "pipe", "br"]).expect(3);
    assert!(unread.stderr.contains("no program reads from this pipe"), "{unread:?}");
    let reader = std::thread::spawn(move || std::fs::read_to_string(pipe).unwrap());
    place.run(&["fetch", "--joblog", "pipe", &urls[0]]).expect(0);
    assert_eq!(reader.join().unwrap().lines().count(), 2);
}

#[test]
fn a_job_log_replaces_nothing_but_a_job_log() {
    let server = server();
    let place = ProgramDir::new();
    let url = format!("{}/a", server.base());
    let list = place.file("urls.txt", format!("{url}\n"));
    let run = |joblog: &str| place.run(&["fetch", "-i", &list, "--joblog", joblog]);
    for (refused, why) in [
        (list.as_str(), "urls.txt, which is no job log: remove it, or name another file"),
        ("-", "--joblog FILE must be a file"),
        ("downloads/a", "is also a file that is to be fetched: downloads/a"),
        ("./downloads/../downloads/a", "is also a file that is to be fetched"),
    ] {
        let ran = run(refused).expect(2);
        assert!(ran.stderr.contains(why), "{refused}: {ran:?}");
    }
    assert_eq!(std::fs::read_to_string(place.path("urls.txt")).unwrap(), format!("{url}\n"));
    assert!(server.seen().is_empty(), "{:?}", server.seen());
    place.file("jobs.tsv", String::new());
    for _ in 0..2 {
        run("jobs.tsv").expect(0);
        assert_eq!(std::fs::read_to_string(place.path("jobs.tsv")).unwrap().lines().count(), 2);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn workers_in_a_sandbox_fetch_files_into_directories_of_the_destination() {
    let server = server();
    let place = ProgramDir::new();
    let list = place.file("urls.txt", format!("{}/a x/y/z\n", server.base()));
    let ran = place.run(&["fetch", "-i", &list, "--sandbox", "strict", "--rate", "100"]);
    if ran.stderr.contains("the sandbox cannot be put in place") {
        return crate::programs::skipped(&ran.stderr);
    }
    ran.expect(0);
    assert_eq!(texts(&place, "downloads/x/y")["z"], "the text of /a");
}

#[test]
fn progress_is_told_in_lines_where_there_is_no_terminal() {
    let place = ProgramDir::new();
    let args = ["-s", "DELAY", "B", "-l", "4", "--mode", "sequential", "--progress", "lines:0.3"];
    let ran = place.run(&args).expect(0);
    let lines: Vec<_> = ran.stderr.lines().filter(|line| line.contains("/4, ")).collect();
    assert!(
        lines.len() >= 2 && lines.iter().all(|line| line.starts_with("coordinator: ")),
        "{ran:?}"
    );
    assert!(lines.iter().any(|line| line.ends_with(" left")), "{ran:?}");
    let ran = place.run(&["br", "--progress", "often"]).expect(2);
    assert!(ran.stderr.contains("must be auto, bar, lines, lines:SECS or none"), "{ran:?}");
}
