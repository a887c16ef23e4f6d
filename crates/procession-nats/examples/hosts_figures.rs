//! Measures a cluster: starts a nats-server (that of the variable `NATS_SERVER`, or on `PATH`) with file storage
//! in a temporary directory and two agents on this machine, and runs tasks that do nothing.
//!
//! ```text
//! NATS_SERVER=$(.ci/nats-server) cargo run --release -p procession-nats --example hosts_figures -- [TASKS]
//! ```

use std::error::Error;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use procession::{Executor, ProcessPool, Registry, Shutdown, as_completed};
use procession_nats::{Agent, Cluster, ConnectSettings};

#[procession::task]
fn noop(n: u64) -> u64 {
    n
}

const AGENT: &str = "HOSTS_FIGURES_AGENT";
const SLOTS: usize = 64;
const SLOTS_VARIABLE: &str = "HOSTS_FIGURES_SLOTS";

/// A process that is killed at the end.
struct KilledAtEnd(Child);

impl Drop for KilledAtEnd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[procession::main]
fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(url) = env::var(AGENT) {
        return play_agent(url);
    }
    let tasks = env::args().nth(1).map_or(Ok(20_000), |number| number.parse())?;
    let dir = tempfile::tempdir()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let program = env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned());
    let server = Command::new(program)
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
        .arg(dir.path())
        .stderr(Stdio::null())
        .spawn()?;
    let _server = KilledAtEnd(server);
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline {
            return Err("the nats-server does not answer".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let url = format!("nats://127.0.0.1:{port}");
    let agent = || {
        let mut command = Command::new(env::current_exe()?);
        command.env(AGENT, &url).stdin(Stdio::piped()).spawn().map(KilledAtEnd)
    };
    let _agents = [agent()?, agent()?];
    measure(&Cluster::connect(&url)?, tasks)?;
    for size in [16, 256] {
        let settings = ConnectSettings::new(&url);
        let cluster = Cluster::builder(settings).map_chunks(size).build()?;
        let tasks = tasks * size as u64 / 4;
        println!("map, chunks of {size:<3}     {:>10.0} tasks/s", mapped(&cluster, tasks)?);
    }
    Ok(())
}

/// Tasks a second.
fn mapped(cluster: &Cluster, tasks: u64) -> Result<f64, Box<dyn Error>> {
    let begin = Instant::now();
    for (n, result) in (0..).zip(cluster.map((0..tasks).map(noop))) {
        assert_eq!(result?, n);
    }
    Ok(tasks as f64 / begin.elapsed().as_secs_f64())
}

fn measure(cluster: &Cluster, tasks: u64) -> Result<(), Box<dyn Error>> {
    // Both agents have work, and their workers have started.
    for future in as_completed((0..1000).map(|n| cluster.submit(noop(n)))) {
        future.result()?;
    }
    println!("{} agents of {} slots each, file storage", cluster.hosts().len(), slots());
    let begin = Instant::now();
    for future in as_completed((0..tasks).map(|n| cluster.submit(noop(n)))) {
        future.result()?;
    }
    println!(
        "submit + as_completed  {:>10.0} tasks/s",
        tasks as f64 / begin.elapsed().as_secs_f64()
    );
    println!("map                    {:>10.0} tasks/s", mapped(cluster, tasks)?);
    let begin = Instant::now();
    for n in 0..1000 {
        cluster.submit(noop(n)).result()?;
    }
    println!("one in flight          {:>10.0} us", begin.elapsed().as_secs_f64() * 1e6 / 1000.0);
    cluster.shutdown(Shutdown::Wait);
    Ok(())
}

fn slots() -> usize {
    env::var(SLOTS_VARIABLE).ok().and_then(|slots| slots.parse().ok()).unwrap_or(SLOTS)
}

/// Until its standard input ends, with the program that has started it.
fn play_agent(url: String) -> Result<(), Box<dyn Error>> {
    let pool = ProcessPool::builder().workers(1).build()?;
    let _agent = Agent::builder(ConnectSettings::new(url), Registry::collected())
        .slots(slots())
        .start(pool)?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
