//! `coordinator agent`, `coordinator hosts` and `--mode hosts`. With the feature `hosts` and a nats-server
//! (the variable `NATS_SERVER`), flags are downloaded by two agents.

use crate::programs::ProgramDir;

#[cfg(not(feature = "hosts"))]
#[test]
fn without_the_feature_the_commands_say_how_to_get_it() {
    let place = ProgramDir::new();
    let url = "nats://127.0.0.1:1";
    for args in [
        &["agent", "--nats", url][..],
        &["hosts", "--nats", url],
        &["--mode", "hosts", "--nats", url, "--no-logs"],
        &["demo", "hosts"],
        &["compare", "br", "--modes", "hosts", "--nats", url],
        // It is the first thing that is said, whatever else is missing or wrong.
        &["agent"],
        &["hosts"],
        &["--mode", "hosts"],
        &["--mode", "hosts", "-w", "3"],
        &["compare", "br", "--modes", "threads,hosts"],
    ] {
        let ran = place.run(args).expect(3);
        assert!(
            ran.stderr.contains("cargo install --path . --features hosts"),
            "{args:?}: {ran:?}"
        );
    }
}

#[test]
fn a_certificate_needs_its_key() {
    let place = ProgramDir::new();
    let args = ["hosts", "--nats", "tls://h", "--cert", "agent.pem"];
    let ran = place.run(&args).expect(2);
    assert!(ran.stderr.contains("--key"), "{ran:?}");
}

#[test]
fn other_modes_refuse_the_address_of_servers() {
    let place = ProgramDir::new();
    for (args, why) in [
        (&["--nats", "nats://h"][..], "--nats URL needs --mode hosts"),
        (&["demo", "flags", "--mode", "hosts"], "coordinator demo hosts"),
        (&["compare", "br", "--nats", "nats://h"], "--nats URL needs hosts among --modes"),
    ] {
        let ran = place.run(args).expect(2);
        assert!(ran.stderr.contains(why), "{args:?}: {ran:?}");
    }
}

#[cfg(feature = "hosts")]
#[test]
fn hosts_need_the_address_of_their_servers() {
    let place = ProgramDir::new();
    for (args, why) in [
        (&["--mode", "hosts"][..], "--mode hosts needs --nats URL"),
        (
            &["--mode", "hosts", "--nats", "nats://h", "-w", "3"],
            "--workers 3 contradicts --mode hosts",
        ),
        (
            &["--mode", "hosts", "--nats", "nats://h", "--sandbox", "strict"],
            "--sandbox LEVEL needs",
        ),
        (&["compare", "br", "--modes", "hosts"], "--modes hosts needs --nats URL"),
        (
            &["compare", "--task", "noop", "--modes", "hosts", "--nats", "nats://h"],
            "other hosts download flags",
        ),
    ] {
        let ran = place.run(args).expect(2);
        assert!(ran.stderr.contains(why), "{args:?}: {ran:?}");
    }
}

#[cfg(feature = "hosts")]
mod with_a_server {
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use rustix::process::Signal;

    use crate::programs::{ProgramDir, skipped, wait_until};

    struct NatsServer(Child, String);

    impl Drop for NatsServer {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn server(place: &ProgramDir) -> Option<NatsServer> {
        let Some(program) = std::env::var_os("NATS_SERVER") else {
            skipped("NATS_SERVER is not set: .ci/nats-server prints its path");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(program))
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
            .arg(place.path("nats"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = NatsServer(child, format!("nats://127.0.0.1:{port}"));
        wait_until("a nats-server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(server)
    }

    #[test]
    fn hosts_say_what_waits_and_why() {
        let place = ProgramDir::new();
        let Some(server) = server(&place) else { return };
        let nats = ["--nats", &server.1];
        let hosts = |more: &[&str]| place.run(&[&["hosts"][..], &nats, more].concat()).expect(0);
        assert!(hosts(&[]).stdout.ends_with("0 agents\nnothing waits\n"));
        let run = place.start(&[&["br", "cn", "--mode", "hosts"][..], &nats].concat());
        wait_until("tasks in the queue", || hosts(&[]).stdout.contains("2 tasks of build"));
        let seen = hosts(&[]).stdout;
        let (oldest, why) = (", the oldest for ", ": there is no agent\n");
        assert!(seen.contains(oldest) && seen.ends_with(why), "{seen}");
        let line: serde_json::Value = serde_json::from_str(&hosts(&["--json"]).stdout).unwrap();
        assert_eq!((&line["waiting"], &line["why"]), (&2.into(), &"there is no agent".into()));
        assert!(line["oldest_s"].as_f64().is_some_and(|age| age >= 0.0), "{line}");
        let agent = place.start(&[&["agent", "-w", "1"][..], &nats].concat());
        run.wait().expect(0);
        assert!(hosts(&[]).stdout.ends_with("1 agent\nnothing waits\n"));
        let modes = ["compare", "br", "cn", "--modes", "threads,hosts", "--runs", "1"];
        let compared = place.run(&[&modes[..], &nats].concat()).expect(0).stdout;
        assert!(compared.contains("hosts") && compared.contains("2 ok"), "{compared}");
        agent.signal(Signal::TERM);
        agent.wait().expect(0);
    }

    #[test]
    fn the_logs_of_agents_are_fetched_and_read_as_others() {
        let place = ProgramDir::new();
        let Some(server) = server(&place) else { return };
        let nats = ["--nats", &server.1];
        let agent = |host: &str, more: &[&str]| {
            let args = [&["agent", "--host", host, "-w", "1"][..], &nats, more].concat();
            let run = place.start(&args);
            wait_until("an agent", || run.stderr().contains("takes tasks"));
            run
        };
        let silent = agent("silent", &[]);
        let fetch =
            |dir| place.run(&[&["hosts", "--logs", dir][..], &nats].concat()).expect(0).stdout;
        assert!(fetch("none").contains("): the agent keeps no logs\n"));
        silent.signal(Signal::TERM);
        silent.wait().expect(0);
        let other = agent("../other", &["--logs", "kept"]);
        let run = [&["br", "cn", "us", "--mode", "hosts"][..], &nats].concat();
        place.run(&run).expect(0);
        let fetched = fetch("fetched");
        assert!(
            fetched.contains("../other (pid ") && fetched.contains("files in fetched/___other-"),
            "{fetched}"
        );
        let dirs: Vec<_> = std::fs::read_dir(place.path("fetched")).unwrap().collect();
        let [Ok(dir)] = &dirs[..] else { panic!("{dirs:?}") };
        let logged = place.run(&["logs", dir.path().to_str().unwrap()]).expect(0).stdout;
        let lines = logged.lines().filter(|line| line.contains("worker 0"));
        assert!(lines.count() > 0 && logged.contains("3 ok"), "{logged}");
        other.signal(Signal::TERM);
        other.wait().expect(0);
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let place = ProgramDir::new();
        let made = place.run(&["hosts", "--new-nkey", "agent.nk"]).expect(0);
        assert!(made.stdout.starts_with('U') && made.stdout.len() == 57, "{made:?}");
        let mode = std::fs::metadata(place.path("agent.nk")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = place.run(&["hosts", "--new-nkey", "agent.nk"]).expect(3);
        assert!(again.stderr.contains("agent.nk: File exists"), "{again:?}");
    }

    #[test]
    fn errors_of_a_connection_say_what_is_wrong() {
        let place = ProgramDir::new();
        std::fs::write(place.path("bad.nk"), "no seed").unwrap();
        for (args, why) in [
            (&["--nats", "nats://127.0.0.1:1"][..], "cannot connect to NATS at nats://127.0.0.1:1"),
            (&["--nats", "nats://me:secret@127.0.0.1:1"], "nats://…@127.0.0.1:1"),
            (&["--nats", "nats://127.0.0.1:1", "--nkey", "missing.nk"], "missing.nk: No such file"),
            (&["--nats", "nats://127.0.0.1:1", "--nkey", "bad.nk"], "bad.nk"),
            (&["--nats", "nats://127.0.0.1:1", "--ca", "missing.pem"], "missing.pem"),
        ] {
            let ran = place.run(&[&["hosts"][..], args].concat()).expect(3);
            assert!(
                ran.stderr.contains(why) && !ran.stderr.contains("secret"),
                "{args:?}: {ran:?}"
            );
        }
    }

    #[test]
    fn after_the_error_that_ends_a_run_hosts_begin_no_more_than_they_have_workers_for() {
        let place = ProgramDir::new();
        let Some(server) = server(&place) else { return };
        let nats = ["--nats", &server.1];
        let args = ["agent", "-w", "2", "--slots", "40"];
        let agent = place.start(&[&args[..], &nats].concat());
        wait_until("an agent", || agent.stderr().contains("takes tasks"));
        let urls = (0..300).map(|n| format!("http://127.0.0.1:1/broken{n}\n"));
        let list = place.file("urls.txt", urls.collect::<String>());
        let args = ["fetch", "-i", &list, "--mode", "hosts", "--json"];
        for (bound, errors) in [(&["--fail-fast"][..], 1), (&["--max-errors", "20"], 20)] {
            let ran = place.run(&[&args[..], bound, &nats].concat()).expect(1);
            let (failed, left) = (ran.summary().error, ran.summary().not_done);
            assert!((errors..errors + 2).contains(&failed) && failed + left == 300, "{ran:?}");
        }
        agent.signal(Signal::TERM);
        agent.wait().expect(0);
    }

    #[test]
    fn a_run_with_a_name_that_was_killed_is_gone_on_with_or_forgotten() {
        let place = ProgramDir::new();
        let Some(server) = server(&place) else { return };
        let nats = ["--nats", &server.1];
        let urls = (0..5).map(|n| format!("http://127.0.0.1:1/broken{n}\n"));
        let list = place.file("urls.txt", urls.collect::<String>());
        let args = ["fetch", "-i", &list, "--mode", "hosts", "--retries", "0", "--job", "nightly"];
        let hosts = |more: &[&str]| place.run(&[&["hosts"][..], &nats, more].concat());
        let begin_and_kill = || {
            let run = place.start(&[&args[..], &nats].concat());
            wait_until("tasks", || hosts(&[]).expect(0).stdout.contains("5 tasks of build"));
            run.signal(Signal::KILL);
            run.wait()
        };
        begin_and_kill();
        assert!(hosts(&[]).expect(0).stdout.contains("5 tasks of build"), "they are kept");
        assert!(hosts(&["--forget", "a b"]).expect(3).stderr.contains("is not 1 to 64"));
        let told = hosts(&["--forget", "nightly"]).expect(0).stdout;
        assert_eq!(told, "the servers keep nothing of job nightly\n");
        assert!(hosts(&[]).expect(0).stdout.ends_with("nothing waits\n"));
        begin_and_kill();
        let agent = place.start(&[&["agent", "-w", "1"][..], &nats].concat());
        wait_until("an empty queue", || {
            hosts(&[]).expect(0).stdout.ends_with("1 agent\nnothing waits\n")
        });
        agent.signal(Signal::TERM);
        agent.wait().expect(0);
        // There is no agent, so these are the results that were kept.
        let ran = place.run(&[&args[..], &nats, &["--json"]].concat()).expect(1);
        assert_eq!((ran.summary().error, ran.summary().not_done), (5, 0), "{ran:?}");
    }

    #[test]
    fn two_agents_download_all_flags_although_one_of_them_is_killed() {
        let place = ProgramDir::new();
        let Some(server) = server(&place) else { return };
        let nats = ["--nats", &server.1];
        let agent = |host: &str| {
            let run = place.start(
                &[&["agent", "--host", host, "--lease", "2", "-w", "2"][..], &nats].concat(),
            );
            wait_until("an agent", || run.stderr().contains("takes tasks"));
            run
        };
        let (doomed, other) = (agent("doomed"), agent("other"));
        let seen = place.run(&[&["hosts"][..], &nats].concat()).expect(0);
        assert!(seen.stdout.contains("doomed") && seen.stdout.contains("2 agents"), "{seen:?}");
        let run = place.start(
            &[&["-a", "-v", "-s", "DELAY", "--retries", "2", "--mode", "hosts"][..], &nats]
                .concat(),
        );
        wait_until("some flags", || run.stdout().lines().count() > 20);
        doomed.signal(Signal::KILL);
        let ran = run.wait().expect(0);
        assert!(ran.stdout.contains("194 flags downloaded."), "{ran:?}");
        assert!(ran.stderr.contains("host doomed was lost"), "{ran:?}");
        assert_eq!(place.flags("downloads").len(), 194);
        let seen = place.run(&["timeline"]).expect(0).stdout;
        assert!(seen.contains(": 194 ok, 0 not found, 0 errors in"), "{seen}");
        assert!(seen.contains("doomed/0") && seen.contains("other/0"), "{seen}");
        let logged = place.run(&["logs"]).expect(0).stdout;
        assert!(logged.contains("other/1") && !logged.contains("194 not done"), "{logged}");
        let again = place.run(&["--resume"]).expect(0).stdout;
        assert!(!again.contains("194"), "{again}");
        other.signal(Signal::TERM);
        other.wait().expect(0);
    }
}
