//! `coordinator agent`, `coordinator hosts` and `--mode hosts`. With the feature `hosts` and a nats-server
//! (the variable `NATS_SERVER`), flags are downloaded by two agents.

use crate::programs::Sandbox;

#[cfg(not(feature = "hosts"))]
#[test]
fn without_the_feature_the_commands_say_how_to_get_it() {
    let place = Sandbox::new();
    let url = "nats://127.0.0.1:1";
    for args in [
        &["agent", "--nats", url][..],
        &["hosts", "--nats", url],
        &["--mode", "hosts", "--nats", url, "--no-logs"],
        &["demo", "hosts"],
    ] {
        let ran = place.run(args).expect(3);
        assert!(
            ran.stderr.contains("cargo install --path . --features hosts"),
            "{args:?}: {ran:?}"
        );
    }
}

#[test]
fn hosts_need_the_address_of_their_servers_and_other_modes_refuse_it() {
    let place = Sandbox::new();
    for (args, why) in [
        (&["--mode", "hosts"][..], "--mode hosts needs --nats URL"),
        (&["--nats", "nats://h"], "--nats URL needs --mode hosts"),
        (
            &["--mode", "hosts", "--nats", "nats://h", "-w", "3"],
            "--workers 3 contradicts --mode hosts",
        ),
        (
            &["--mode", "hosts", "--nats", "nats://h", "--sandbox", "strict"],
            "--sandbox LEVEL needs",
        ),
        (&["demo", "flags", "--mode", "hosts"], "coordinator demo hosts"),
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

    use crate::programs::{Sandbox, skipped, wait_until};

    struct NatsServer(Child, String);

    impl Drop for NatsServer {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn server(place: &Sandbox) -> Option<NatsServer> {
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
    fn two_agents_download_all_flags_although_one_of_them_is_killed() {
        let place = Sandbox::new();
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
        other.signal(Signal::TERM);
        other.wait().expect(0);
    }
}
