//! `coordinator serve`, and the commands that only say something.

use std::net::{Ipv4Addr, TcpListener};

use crate::programs::{PATIENCE, ProgramDir, RunningProgram, wait_until};
use assert_cmd::cargo::cargo_bin;
use procession_cli::flag_server::image;
use rustix::process::Signal;

const FREE_PORTS: [&str; 7] =
    ["serve", "--local-port", "0", "--delay-port", "0", "--error-port", "0"];

/// Starts servers on free ports; gives their URLs as well: LOCAL, DELAY, ERROR.
fn serve(place: &ProgramDir, args: &[&str]) -> (RunningProgram, [String; 3]) {
    let run = place.start(&[&FREE_PORTS, args].concat());
    wait_until("three URLs are printed", || run.stdout().lines().count() == 3);
    let stdout = run.stdout();
    let mut lines = stdout.lines();
    let urls = ["LOCAL", "DELAY", "ERROR"].map(|label| {
        let url = lines.next().unwrap().strip_prefix(&format!("{label} site: ")).unwrap();
        assert!(url.starts_with("http://localhost:") && url.ends_with("/flags"), "{url}");
        url.to_owned()
    });
    (run, urls)
}

fn get(url: &str) -> (u16, Vec<u8>) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let mut response = agent.get(url).call().unwrap();
    (response.status().as_u16(), response.body_mut().read_to_vec().unwrap())
}

#[test]
fn three_servers_serve_until_a_signal_comes() {
    for signal in [Signal::INT, Signal::TERM] {
        let place = ProgramDir::new();
        let (run, urls) = serve(&place, &[]);
        for url in &urls[..2] {
            assert_eq!(get(&format!("{url}/br/br.gif")), (200, image("br").unwrap().to_vec()));
            assert_eq!(get(&format!("{url}/zz/zz.gif")).0, 404);
        }
        let statuses: Vec<_> = ["ad", "ae", "af", "ag", "al", "am", "ao", "ar"]
            .map(|cc| get(&format!("{}/{cc}/{cc}.gif", urls[2])).0)
            .into();
        assert!(statuses.contains(&200) && statuses.iter().any(|&s| s >= 500), "{statuses:?}");
        run.signal(signal);
        let ran = run.wait().expect(0);
        assert!(ran.stderr.starts_with("serving as process "), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        assert_eq!(place.path("").read_dir().unwrap().count(), 0, "nothing was written");
    }
}

#[test]
fn a_coordinator_downloads_from_them_in_each_mode() {
    let place = ProgramDir::new();
    let (_servers, urls) = serve(&place, &[]);
    for mode in crate::programs::MODES {
        let ran = place.run(&["--all", "-s", &urls[0], "--mode", mode, "--json", "-d", mode]);
        assert_eq!(ran.expect(0).summary().ok, 194);
        assert_eq!(place.flags(mode).len(), 194);
    }
    // The faults of a server depend on what is asked for, not on who asks when.
    let inside = place.run(&["-e", "-s", "ERROR", "--mode", "threads", "-m", "200", "--json"]);
    let outside = place.run(&["-e", "-s", &urls[2], "--mode", "threads", "-m", "200", "--json"]);
    assert_eq!(inside.expect(1).summary().counts(), outside.expect(1).summary().counts());
}

#[test]
fn verbose_prints_each_request() {
    let place = ProgramDir::new();
    let (run, urls) = serve(&place, &["-v"]);
    get(&format!("{}/br/br.gif", urls[0]));
    get(&format!("{}/zz/zz.gif", urls[1]));
    run.signal(Signal::TERM);
    let stderr = run.wait().expect(0).stderr;
    assert!(stderr.contains("\nLOCAL GET /flags/br/br.gif 200\n"), "{stderr}");
    assert!(stderr.contains("\nDELAY GET /flags/zz/zz.gif 404 (delayed)\n"), "{stderr}");
}

#[test]
fn a_port_in_use_is_reported_with_its_address() {
    let place = ProgramDir::new();
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = other.local_addr().unwrap();
    let port = address.port().to_string();
    for option in ["--local-port", "--delay-port", "--error-port"] {
        let mut args = FREE_PORTS;
        let at = args.iter().position(|&arg| arg == option).unwrap();
        args[at + 1] = &port;
        let ran = place.run(&args).expect(3);
        assert!(ran.stderr.starts_with("coordinator: "), "{ran:?}");
        assert!(ran.stderr.contains(&address.to_string()), "{ran:?}");
        assert!(ran.stderr.contains("choose another port"), "{ran:?}");
        assert_eq!((ran.stdout.as_str(), ran.stderr.lines().count()), ("", 1), "{ran:?}");
    }
}

#[test]
fn a_closed_stdout_does_not_end_a_server() {
    let place = ProgramDir::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = RunningProgram::start(place.coordinator(&FREE_PORTS).stdout(writer));
    wait_until("it serves", || run.stderr().contains("serving"));
    run.signal(Signal::INT);
    run.wait().expect(0);
}

#[test]
fn usage_errors_of_serve_name_the_option() {
    let place = ProgramDir::new();
    for (option, value) in [("--host", "nowhere"), ("--local-port", "65536"), ("--seed", "x")] {
        let ran = place.run(&["serve", option, value]).expect(2);
        assert!(ran.stderr.contains(option), "{ran:?}");
    }
}

#[test]
fn a_worker_that_was_started_by_hand_explains_itself() {
    let place = ProgramDir::new();
    for args in [&[][..], &["--help"], &["br"]] {
        let mut worker = place.command(cargo_bin!("worker"), args);
        let ran = RunningProgram::start(&mut worker).wait().expect(2);
        assert!(ran.stderr.contains("this is a worker process of procession"), "{ran:?}");
        assert!(ran.stderr.contains("coordinator --help"), "{ran:?}");
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn the_version_and_the_help_are_printed() {
    let place = ProgramDir::new();
    let version = format!("coordinator {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(place.run(&["--version"]).expect(0).stdout, version);
    let help = place.run(&["--help"]).expect(0).stdout;
    for part in ["Usage: coordinator [OPTIONS] [CC]...", "--max_req", "Examples:", "Exit code:"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert!(place.run(&["serve", "--help"]).expect(0).stdout.contains("Examples:"));
}

#[test]
fn completions_are_printed_for_each_shell() {
    let place = ProgramDir::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = place.run(&["completions", shell]).expect(0);
        assert!(ran.stdout.contains("coordinator") && ran.stdout.contains("max_req"), "{shell}");
        assert_eq!(ran.stderr, "");
    }
    let bash = place.run(&["completions", "bash"]).expect(0).stdout;
    for values in [
        "LOCAL DELAY ERROR REMOTE",
        "sequential threads processes hosts",
        "auto bar lines none",
        "ok not_found error not_done",
        "debug info warn error",
    ] {
        assert!(bash.contains(&format!("compgen -W \"{values}\"")), "{values}");
    }
    assert!(place.run(&["completions", "cmd"]).expect(2).stderr.contains("cmd"));
}

#[test]
fn manual_pages_are_printed_or_written_for_each_command() {
    let place = ProgramDir::new();
    let page = place.run(&["man"]).expect(0).stdout;
    assert!(page.contains(".TH coordinator 1") && page.contains("max_req"), "{page}");
    assert!(page.contains("\n.nf\n  coordinator \\-\\-all   "), "{page}");
    place.run(&["man", "share/man1"]).expect(0);
    let pages = place.files("share/man1");
    for name in ["coordinator.1", "coordinator-fetch.1", "coordinator-logs.1"] {
        assert!(pages.contains_key(name), "{name}: {:?}", pages.keys());
    }
    place.file("taken", "");
    let ran = place.run(&["man", "taken/man1"]).expect(3);
    assert!(ran.stderr.contains("cannot write manual pages into taken/man1"), "{ran:?}");
}
