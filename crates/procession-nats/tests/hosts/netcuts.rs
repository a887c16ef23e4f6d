//! A host behind a network that is cut. Each scene plays in a network of its own, with a second one for the
//! host, and a cable between them (`unshare`, `ip`, veth); where that is not permitted, it is skipped.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use libtest_mimic::Trial;
use procession::{Executor, Future, ProcessPool, Registry, TaskError};
use procession_nats::{Agent, Cluster, ConnectSettings};

use crate::configured::ConfiguredServer;
use crate::harness::{self, Gate, eventually, is_alive};
use crate::place::{self, end_with_input, find_server};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_host_behind_a_cut_ends_its_task_before_another_host_begins_it,
        a_result_that_comes_when_the_cable_is_mended_is_refused,
        without_retries_a_cut_host_is_named_and_its_task_begins_nowhere_else,
    ]
}

const PORT: u16 = 4222;
const NEAR: &str = "10.77.0.1";
const FAR: &str = "10.77.0.2";

/// Writes the id of its process, again and again, until the gate is open. Returns that id.
#[procession::task]
fn beats(file: PathBuf, gate: PathBuf) -> u32 {
    let pid = std::process::id();
    let _ = harness::arrive(&gate);
    while gate.exists() && !gate.join("open").exists() {
        if let Ok(mut opened) = OpenOptions::new().create(true).append(true).open(&file) {
            let _ = opened.write_all(format!("{pid}\n").as_bytes());
        }
        thread::sleep(Duration::from_millis(2));
    }
    pid
}

/// The processes that have written, in the order in which they did.
fn beaten(file: &Path) -> Vec<u32> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut pids: Vec<u32> = text.lines().map(|line| line.parse().expect("a number")).collect();
    pids.dedup();
    pids
}

fn run(program: &str, arguments: &str) -> Output {
    let mut command = Command::new(program);
    command.args(arguments.split(' ')).stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

#[track_caller]
fn ip(arguments: &str) {
    let ran = run("ip", arguments);
    assert!(ran.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// How this program is started in a network of its own.
fn unshare(arguments: &[&str], role: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(arguments).arg(env::current_exe().expect("this program"));
    command.env(place::ROLE, role).stdin(Stdio::piped());
    command
}

/// Plays a scene in a network of its own.
fn play(scene: &str) {
    find_server();
    let is_permitted = |how: &[&str]| {
        let tried = Command::new("unshare")
            .args(how)
            .args(["sh", "-c", "ip link add near type veth peer name far"])
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    };
    let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    let Some(how) = ways.into_iter().find(|how| is_permitted(how)) else {
        harness::skip("SKIPPED: no networks of its own are permitted here (unshare, ip, veth)")
    };
    let mut stage = unshare(how, &format!("scene {scene}"));
    stage.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut played = stage.spawn().expect("a process");
    // As long as this is there, it plays.
    let _input = played.stdin.take();
    let played = played.wait_with_output().expect("its end");
    let text = String::from_utf8_lossy(&played.stdout);
    let errors = String::from_utf8_lossy(&played.stderr);
    assert!(played.status.success() && text.contains("played"), "{text}\n{errors}");
}

fn a_host_behind_a_cut_ends_its_task_before_another_host_begins_it() {
    play("fence");
}

fn a_result_that_comes_when_the_cable_is_mended_is_refused() {
    play("late");
}

fn without_retries_a_cut_host_is_named_and_its_task_begins_nowhere_else() {
    play("once");
}

pub(crate) fn play_if_asked() {
    let Some(arguments) = place::asked() else { return };
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["scene", scene] => {
            match scene {
                "fence" => Stage::new().fence(),
                "late" => Stage::new().late(),
                "once" => Stage::new().once(),
                _ => unreachable!("scenes are above"),
            }
            println!("played");
            std::process::exit(0);
        }
        ["cut-agent", host] => be_agent(host),
        _ => {}
    }
}

/// An agent; one that is called `far` waits for its end of the cable first.
fn be_agent(host: &str) -> ! {
    end_with_input();
    let url = format!("nats://{NEAR}:{PORT}");
    if host == "far" {
        eventually("an end of the cable", || run("ip", "link show far").status.success());
        ip(&format!("addr add {FAR}/24 dev far"));
        ip("link set far up");
        eventually("a network", || std::net::TcpStream::connect((NEAR, PORT)).is_ok());
    }
    let pool = ProcessPool::builder().workers(1).build().expect("a pool");
    let agent = Agent::builder(ConnectSettings::new(url), Registry::collected())
        .host_name(host)
        .lease(Duration::from_secs(1));
    let agent = agent.start(pool).expect("an agent");
    println!("ready");
    agent.wait().expect("an end");
    std::process::exit(0);
}

/// A server and a coordinator on one side of the cable, a host on the other.
struct Stage {
    server: ConfiguredServer,
    file: PathBuf,
    gate: Gate,
    far: NetAgent,
}

struct NetAgent(Child);

impl NetAgent {
    fn await_ready(&mut self) {
        let mut line = String::new();
        let output = self.0.stdout.as_mut().expect("an output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
    }
}

impl Drop for NetAgent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stage {
    fn new() -> Self {
        // If the test is over, so is this.
        end_with_input();
        ip("link set lo up");
        ip("link add near type veth peer name far");
        ip(&format!("addr add {NEAR}/24 dev near"));
        ip("link set near up");
        // Nobody else is in this network.
        let server = ConfiguredServer::start_at("0.0.0.0", "jetstream {}\n", PORT, &[]);
        let far = unshare(&["--net"], "cut-agent far").stdout(Stdio::piped()).spawn();
        let mut far = NetAgent(far.expect("a process"));
        let pid = far.0.id();
        let own = fs::read_link("/proc/self/ns/net").expect("a network");
        eventually("another network", || {
            fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|other| other != own)
        });
        ip(&format!("link set far netns {pid}"));
        far.await_ready();
        let file = server.path("beats");
        Self { server, file, gate: Gate::new(), far }
    }

    fn cluster(&self, attempts: u32) -> Cluster {
        let settings = ConnectSettings::new(self.server.url());
        Cluster::builder(settings).attempts(attempts).build().expect("a cluster")
    }

    /// A task that runs on the far host, whose cable is cut then; and its process there.
    fn cut(&self, cluster: &Cluster) -> (Future<u32>, u32) {
        let future = cluster.submit(beats(self.file.clone(), self.gate.path()));
        eventually("a run", || !beaten(&self.file).is_empty());
        ip("link set near down");
        (future, beaten(&self.file)[0])
    }

    fn near_agent() -> NetAgent {
        let mut near = NetAgent(place::role("cut-agent near"));
        near.await_ready();
        near
    }

    fn fence(mut self) {
        let cluster = self.cluster(2);
        let (future, first) = self.cut(&cluster);
        let _near = Self::near_agent();
        eventually("a run elsewhere", || beaten(&self.file).len() > 1);
        assert!(!is_alive(first), "it was ended before another host began");
        assert!(self.far.0.try_wait().expect("a child").is_none(), "the agent is there");
        self.gate.open();
        let second = future.result().expect("the other host's result");
        // Each has written only before the other, or after it.
        assert_eq!(beaten(&self.file), [first, second]);
        assert_eq!((cluster.stats().retried, cluster.stats().lost), (1, 0));
        ip("link set near up");
        self.await_far(&cluster);
        let works = (0..20).map(|_| cluster.submit(beats(self.file.clone(), self.gate.path())));
        assert!(works.collect::<Vec<_>>().into_iter().all(|future| future.result().is_ok()));
    }

    fn late(self) {
        let cluster = self.cluster(2);
        let (future, first) = self.cut(&cluster);
        // It has a result now, which cannot be sent.
        self.gate.open();
        let _near = Self::near_agent();
        let second = future.result().expect("the other host's result");
        assert_ne!(first, second);
        ip("link set near up");
        self.await_far(&cluster);
        // The latest record of the task is that of the second attempt.
        let record = self.last_record();
        assert_eq!((&record["attempt"], &record["state"]), (&2.into(), &"done".into()), "{record}");
        assert_eq!(cluster.stats().retried, 1);
    }

    fn once(self) {
        let cluster = self.cluster(1);
        let (future, first) = self.cut(&cluster);
        let _near = Self::near_agent();
        let error = future.result().expect_err("its host is lost");
        let TaskError::HostLost { host, attempts, .. } = error else { panic!("{error}") };
        assert_eq!((host.as_str(), attempts), ("far", 1));
        assert!(!is_alive(first), "it was ended");
        self.gate.open();
        ip("link set near up");
        self.await_far(&cluster);
        assert_eq!(beaten(&self.file), [first]);
    }

    /// It has a lease again, under another name.
    fn await_far(&self, cluster: &Cluster) {
        eventually("the far host", || {
            let seen = cluster.hosts();
            seen.iter().any(|lease| lease.host == "far")
        });
    }

    fn last_record(&self) -> serde_json::Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let client = async_nats::connect(self.server.url()).await.expect("a connection");
            let stream = async_nats::jetstream::new(client).get_stream("procession-records").await;
            let stream = stream.expect("a stream");
            let last = stream.cached_info().state.last_sequence;
            let message = stream.get_raw_message(last).await.expect("a message");
            let line = message.payload.split(|byte| *byte == b'\n').next().expect("a record");
            serde_json::from_slice(line).expect("JSON")
        })
    }
}
