//! Where a test takes place: a nats-server of its own, and agents, which are processes.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use futures_util::StreamExt;
use procession::{Executor, ProcessPool, Registry};
use procession_nats::{Agent, Cluster, ClusterBuilder, ConnectSettings};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{self, eventually, signal};

/// What this program is to play, and its arguments, separated by blanks.
pub(crate) const ROLE: &str = "PROCESSION_NATS_ROLE";

/// A nats-server with its own directory, and what is connected to it.
pub(crate) struct Place {
    dir: TempDir,
    port: u16,
    server: Option<Child>,
    pid: u32,
    extra: &'static str,
}

/// An agent, in a process of its own. It ends when this is dropped.
pub(crate) struct AgentProcess {
    child: Child,
    pub(crate) host: String,
}

/// How an agent is started.
#[derive(Clone, Copy)]
pub(crate) struct AgentKind {
    pub(crate) workers: usize,
    pub(crate) slots: usize,
    pub(crate) lease_ms: u64,
    /// `-`: that of the program.
    pub(crate) build: &'static str,
}

impl Default for AgentKind {
    fn default() -> Self {
        Self { workers: 2, slots: 4, lease_ms: 2000, build: "-" }
    }
}

pub(crate) fn find_server() -> PathBuf {
    let ours = env::current_exe().expect("this program");
    let target = ours.ancestors().nth(3).map(|target| target.join("nats-server/nats-server"));
    let given = env::var_os("NATS_SERVER").map(PathBuf::from);
    let on_path = env::var_os("PATH").unwrap_or_default();
    let on_path =
        env::split_paths(&on_path).map(|dir| dir.join("nats-server")).find(|it| it.exists());
    let mut found = [given, target, on_path].into_iter().flatten();
    let found = found.find(|path| path.exists());
    found.unwrap_or_else(|| harness::skip("SKIPPED: no nats-server; .ci/nats-server installs one"))
}

impl Place {
    /// With a server that runs.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// With more lines in the configuration of the server.
    pub(crate) fn with(extra: &'static str) -> Self {
        find_server();
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("an address").port();
        drop(socket);
        let dir = tempfile::tempdir().expect("a directory");
        let mut place = Self { dir, port, server: None, pid: 0, extra };
        place.start();
        place
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A path for a file of the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the server, with what it has kept.
    pub(crate) fn start(&mut self) {
        let config = self.path("server.conf");
        let store = self.path("store");
        let text = format!(
            "listen: 127.0.0.1:{}\njetstream {{ store_dir: {:?}\n{} }}\nlog_file: {:?}\n",
            self.port,
            store,
            self.extra,
            self.path("server.log"),
        );
        fs::write(&config, text).expect("a configuration");
        let mut child = role(&format!("keeper {}", config.display()));
        let mut line = String::new();
        let output = child.stdout.as_mut().expect("an output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        self.pid = line.trim().parse().expect("a process id");
        self.server = Some(child);
        let address = format!("127.0.0.1:{}", self.port);
        eventually("a server", || std::net::TcpStream::connect(&address).is_ok());
    }

    /// Kills the server, as a crash would.
    pub(crate) fn kill_server(&mut self) {
        signal(self.pid, Signal::KILL);
        let mut keeper = self.server.take().expect("a server");
        drop(keeper.stdin.take());
        keeper.wait().expect("the end of the keeper");
    }

    pub(crate) fn restart_server(&mut self) {
        self.kill_server();
        self.start();
    }

    pub(crate) fn server_pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn builder(&self) -> ClusterBuilder {
        Cluster::builder(ConnectSettings::new(self.url()))
    }

    pub(crate) fn cluster(&self) -> Cluster {
        self.builder().build().expect("a cluster")
    }

    /// Starts an agent.
    pub(crate) fn agent(&self, host: &str, kind: AgentKind) -> AgentProcess {
        let AgentKind { workers, slots, lease_ms, build } = kind;
        let url = self.url();
        let child = role(&format!("agent {url} {host} {workers} {slots} {lease_ms} {build}"));
        AgentProcess { child, host: host.to_owned() }
    }

    /// Waits until the cluster has heard of these agents.
    pub(crate) fn await_hosts(&self, cluster: &Cluster, hosts: &[&str]) {
        eventually(&format!("the hosts {hosts:?}"), || {
            let known = cluster.hosts();
            hosts.iter().all(|host| known.iter().any(|lease| lease.host == *host))
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill_server();
        }
    }
}

impl AgentProcess {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, with: Signal) {
        signal(self.child.id(), with);
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts this program in a role. It ends with its standard input.
pub(crate) fn role(arguments: &str) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .env(ROLE, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process")
}

/// What this process was started to play.
pub(crate) fn asked() -> Option<Vec<String>> {
    let role = env::var(ROLE).ok()?;
    Some(role.split(' ').map(str::to_owned).collect())
}

/// Ends this process when the one that started it is gone.
pub(crate) fn end_with_input() {
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

pub(crate) fn play_if_asked() {
    let Some(arguments) = asked() else { return };
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["keeper", config] => keep_server(Command::new(find_server()).args(["-c", config])),
        ["agent", url, host, workers, slots, lease_ms, build] => {
            end_with_input();
            let number = |text: &str| text.parse::<usize>().expect("a number");
            let pool = ProcessPool::builder().workers(number(workers)).build().expect("a pool");
            let mut builder = Agent::builder(ConnectSettings::new(url), Registry::collected())
                .host_name(host)
                .slots(number(slots))
                .lease(Duration::from_millis(number(lease_ms) as u64));
            if build != "-" {
                builder = builder.build_id(build);
            }
            let agent = builder.start(pool).expect("an agent");
            agent.drain_on_signals();
            agent.wait().expect("an end");
            agent.pool().shutdown(procession::Shutdown::Wait);
            std::process::exit(0);
        }
        _ => {}
    }
}

/// Starts a server and keeps it until the standard input of this process ends, so that none is left behind.
pub(crate) fn keep_server(server: &mut Command) -> ! {
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = server.spawn().expect("a server");
    println!("{}", server.id());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let _ = server.kill();
    let _ = server.wait();
    std::process::exit(0);
}

impl Place {
    /// A request to the API of JetStream.
    pub(crate) fn api(&self, subject: &str, request: &str) -> serde_json::Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let client = async_nats::connect(self.url()).await.expect("a connection");
            let subject = format!("$JS.API.{subject}");
            let reply = client.request(subject, request.to_owned().into()).await;
            serde_json::from_slice(&reply.expect("a reply").payload).expect("JSON")
        })
    }

    /// The number of messages that a stream keeps.
    pub(crate) fn messages(&self, stream: &str) -> u64 {
        let info = self.api(&format!("STREAM.INFO.{stream}"), "");
        info["state"]["messages"].as_u64().expect("a number")
    }

    /// The number of messages that a stream has taken so far.
    pub(crate) fn taken(&self, stream: &str) -> u64 {
        let info = self.api(&format!("STREAM.INFO.{stream}"), "");
        info["state"]["last_seq"].as_u64().expect("a number")
    }

    /// Publishes a message again that a stream keeps, or has kept.
    pub(crate) fn publish(&self, subject: &str, payload: Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let client = async_nats::connect(self.url()).await.expect("a connection");
            let published = client.request(subject.to_owned(), payload.into()).await;
            published.expect("a reply");
        });
    }

    /// Calls `begin`, and waits for a message with this subject.
    pub(crate) fn hear(&self, subject: &str, begin: impl FnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let client = async_nats::connect(self.url()).await.expect("a connection");
            let mut messages = client.subscribe(subject.to_owned()).await.expect("a subscription");
            client.flush().await.expect("a subscription");
            begin();
            let heard = tokio::time::timeout(Duration::from_secs(60), messages.next()).await;
            assert!(heard.is_ok_and(|message| message.is_some()), "no message of {subject}");
        });
    }
}

impl Place {
    /// The subject and the payload of a message that a stream keeps.
    pub(crate) fn kept(&self, stream: &str, seq: u64) -> (String, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let client = async_nats::connect(self.url()).await.expect("a connection");
            let stream = async_nats::jetstream::new(client).get_stream(stream).await;
            let message = stream.expect("a stream").get_raw_message(seq).await.expect("a message");
            (message.subject.to_string(), message.payload.to_vec())
        })
    }
}

impl Place {
    /// The number of chunks that a bucket of objects keeps.
    pub(crate) fn chunks(&self, bucket: &str) -> u64 {
        let request = serde_json::json!({ "subjects_filter": format!("$O.{bucket}.C.>") });
        let info = self.api(&format!("STREAM.INFO.OBJ_{bucket}"), &request.to_string());
        info["state"]["subjects"].as_object().map_or(0, |subjects| subjects.len() as u64)
    }
}
