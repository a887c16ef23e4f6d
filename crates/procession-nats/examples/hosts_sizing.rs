//! What the servers of many hosts have to carry: measures the messages and bytes of a task and of an idle agent
//! on this machine, and multiplies them. It is a model, not a test with that number of hosts.
//!
//! ```text
//! NATS_SERVER=$(.ci/nats-server) cargo run --release -p procession-nats --example hosts_sizing -- \
//!     [HOSTS] [SLOTS of each] [SECONDS that a task takes] [COORDINATORS]
//! ```

mod support;

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use std::{env, thread};

use procession::{Executor, as_completed};
use procession_nats::{Cluster, ConnectSettings};

#[procession::task]
fn noop(n: u64) -> u64 {
    n
}

/// The default length of a lease.
const LEASE: Duration = Duration::from_secs(10);
const AGENTS: usize = 2;
const SLOTS: usize = 64;
const TASKS: u64 = 5000;

/// What has gone to and from a server.
#[derive(Debug, Clone, Copy)]
struct Traffic {
    messages_in: f64,
    messages_out: f64,
    bytes_in: f64,
    bytes_out: f64,
    /// Of all streams.
    stored: f64,
}

impl Traffic {
    /// Up to now, as the server tells it over HTTP.
    fn now(port: u16) -> Result<Self, Box<dyn Error>> {
        let (all, kept) = (asked(port, "/varz")?, asked(port, "/jsz")?);
        let of = |answer: &serde_json::Value, name: &str| {
            answer[name].as_f64().ok_or_else(|| format!("the server does not tell {name}"))
        };
        Ok(Self {
            messages_in: of(&all, "in_msgs")?,
            messages_out: of(&all, "out_msgs")?,
            bytes_in: of(&all, "in_bytes")?,
            bytes_out: of(&all, "out_bytes")?,
            stored: of(&kept, "bytes")?,
        })
    }

    /// Applies it to each number, with that of another one.
    fn with(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            messages_in: f(self.messages_in, other.messages_in),
            messages_out: f(self.messages_out, other.messages_out),
            bytes_in: f(self.bytes_in, other.bytes_in),
            bytes_out: f(self.bytes_out, other.bytes_out),
            stored: f(self.stored, other.stored),
        }
    }

    fn times(self, factor: f64) -> Self {
        self.with(self, |number, _| number * factor)
    }

    fn messages(self) -> f64 {
        self.messages_in + self.messages_out
    }

    fn row(self, name: &str) {
        println!(
            "{name:<44} {:>12.1} {:>12.1} {:>14.0} {:>14.0}",
            self.messages_in, self.messages_out, self.bytes_in, self.bytes_out
        );
    }
}

fn asked(port: u16, path: &str) -> Result<serde_json::Value, Box<dyn Error>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("an answer without a body")?;
    Ok(serde_json::from_str(body)?)
}

/// What is assumed.
struct Model {
    hosts: f64,
    slots: f64,
    seconds: f64,
    coordinators: f64,
}

/// What was measured.
struct Measured {
    /// Of one task; `stored` is at its end.
    task: Traffic,
    /// Of one agent that waits for tasks, in a second, with no coordinator.
    idle: Traffic,
    /// Messages that the server has passed on in a second.
    most: f64,
}

#[procession::main]
fn main() -> Result<(), Box<dyn Error>> {
    support::be_agent_if_asked()?;
    let numbers = env::args().skip(1).map(|number| number.parse::<f64>());
    let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let model = Model {
        hosts: number(0, 10_000.0),
        slots: number(1, 16.0),
        seconds: number(2, 60.0),
        coordinators: number(3, 10.0),
    };
    model.print(&measure()?);
    Ok(())
}

fn measure() -> Result<Measured, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let (port, monitor) = (support::free_port()?, support::free_port()?);
    let _server = support::start_server(dir.path(), port, &["-m", &monitor.to_string()])?;
    let url = format!("nats://127.0.0.1:{port}");
    let agent = || support::start_agent(&url, SLOTS, LEASE);
    let _agents = [agent()?, agent()?];
    // Short tasks of a job without a name would travel together, unlike those of the model.
    let cluster = Cluster::builder(ConnectSettings::new(&url)).job("sizing").build()?;
    let run = |tasks: u64| -> Result<(), Box<dyn Error>> {
        for future in as_completed((0..tasks).map(|n| cluster.submit(noop(n)))) {
            future.result()?;
        }
        Ok(())
    };
    run(1000)?;
    let (before, begin) = (Traffic::now(monitor)?, Instant::now());
    run(TASKS)?;
    let (seconds, after) = (begin.elapsed().as_secs_f64(), Traffic::now(monitor)?);
    let tasks = after.with(before, |after, before| after - before);
    drop(cluster);
    // Two leases: renewals, and requests for messages that find none.
    let before = Traffic::now(monitor)?;
    thread::sleep(2 * LEASE);
    let after = Traffic::now(monitor)?;
    let idle = after.with(before, |after, before| after - before);
    Ok(Measured {
        task: tasks.times(1.0 / TASKS as f64),
        idle: idle.times(1.0 / (2.0 * LEASE.as_secs_f64() * AGENTS as f64)),
        most: tasks.messages() / seconds,
    })
}

impl Model {
    fn print(&self, measured: &Measured) {
        let Self { hosts, slots, seconds, coordinators } = *self;
        let rate = hosts * slots / seconds;
        // Each renewal of a lease goes to each coordinator.
        let renewals = hosts * 4.0 / LEASE.as_secs_f64();
        println!("{:<44} {:>12} {:>12} {:>14} {:>14}", "", "messages in", "out", "bytes in", "out");
        measured.task.row("measured: a task");
        measured.idle.row("measured: an idle agent, a second");
        let tasks = measured.task.times(rate);
        tasks.row(&format!("model: {rate:.0} tasks a second"));
        let idle = measured.idle.times(hosts);
        idle.row(&format!("model: {hosts:.0} idle agents, a second"));
        let heard = renewals * coordinators;
        println!("model: leases to {coordinators:.0} coordinators, a second {heard:>23.1}");
        let sum = tasks.messages() + idle.messages() + heard;
        println!("model: all messages, a second                {sum:>12.0}");
        println!("measured: one server here passed on          {:>12.0}", measured.most);
        println!("model: such servers, or zones                {:>12.1}", sum / measured.most);
        let kept = measured.task.stored * (hosts * slots + 10_000.0 * coordinators);
        println!(
            "model: bytes stored, of tasks that run, and of 10,000 that have ended for each coordinator {kept:.0}"
        );
    }
}
