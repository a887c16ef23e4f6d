//! Measures a cluster: starts a nats-server (that of the variable `NATS_SERVER`, or on `PATH`) with file storage
//! in a temporary directory and two agents on this machine, and runs tasks that do nothing. Then it kills one
//! agent in the middle of tasks of 2 ms, and counts what is lost and what begins twice.
//!
//! ```text
//! NATS_SERVER=$(.ci/nats-server) cargo run --release -p procession-nats --example hosts_figures -- [TASKS] [--json]
//! ```

mod support;

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, thread};

use procession::{Executor, Shutdown, as_completed};
use procession_nats::{Cluster, ConnectSettings};
use support::KilledAtEnd;

#[procession::task]
fn noop(n: u64) -> u64 {
    n
}

/// Writes a line when it begins, and takes 2 ms.
#[procession::task]
fn noted(file: PathBuf, n: u64) -> u64 {
    let opened = OpenOptions::new().create(true).append(true).open(file);
    let _ = opened.and_then(|mut file| file.write_all(format!("{n}\n").as_bytes()));
    thread::sleep(Duration::from_millis(2));
    n
}

/// Of each agent, unless a variable says another number.
const SLOTS: usize = 64;
const SLOTS_VARIABLE: &str = "HOSTS_FIGURES_SLOTS";

#[procession::main]
fn main() -> Result<(), Box<dyn Error>> {
    support::be_agent_if_asked()?;
    let (options, numbers): (Vec<_>, Vec<_>) =
        env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let tasks = numbers.first().map_or(Ok(20_000), |number| number.parse())?;
    let is_json = options.iter().any(|option| option == "--json");
    let dir = tempfile::tempdir()?;
    let port = support::free_port()?;
    let _server = support::start_server(dir.path(), port, &[])?;
    let url = format!("nats://127.0.0.1:{port}");
    let agent = || support::start_agent(&url, slots(), Duration::from_secs(1));
    let agents = [agent()?, agent()?];
    let mut figures = measure(&Cluster::connect(&url)?, tasks)?;
    for size in [16, 256] {
        let settings = ConnectSettings::new(&url);
        let cluster = Cluster::builder(settings).map_chunks(size).build()?;
        // The run time of the tasks is known.
        mapped(&cluster, 2000)?;
        let rate = mapped(&cluster, tasks * size as u64 / 4)?;
        figures.push((format!("map, chunks of {size}, tasks/s"), rate));
    }
    figures.extend(killed(&url, agents, &dir.path().join("notes"))?);
    if is_json {
        let figures: serde_json::Map<_, _> =
            figures.into_iter().map(|(name, figure)| (name, figure.into())).collect();
        println!("{}", serde_json::Value::from(figures));
    } else {
        figures.iter().for_each(|(name, figure)| println!("{name:<32} {figure:>12.1}"));
    }
    Ok(())
}

type Figures = Vec<(String, f64)>;

/// One of the two agents is killed in the middle of 1,000 tasks of 2 ms, which have three attempts.
fn killed(url: &str, agents: [KilledAtEnd; 2], notes: &Path) -> Result<Figures, Box<dyn Error>> {
    const TASKS: u64 = 1000;
    let cluster = Cluster::builder(ConnectSettings::new(url)).attempts(3).build()?;
    let futures: Vec<_> = (0..TASKS).map(|n| cluster.submit(noted(notes.into(), n))).collect();
    while std::fs::read_to_string(notes).unwrap_or_default().lines().count() < 200 {
        thread::sleep(Duration::from_millis(2));
    }
    let [doomed, _other] = agents;
    drop(doomed);
    let begin = Instant::now();
    let lost = futures.into_iter().map(procession::Future::result).filter(Result::is_err).count();
    let seconds = begin.elapsed().as_secs_f64();
    let begun = std::fs::read_to_string(notes)?;
    let mut once: Vec<_> = begun.lines().collect();
    let all = once.len();
    once.sort_unstable();
    once.dedup();
    let figure = |name: &str, figure| (name.to_owned(), figure);
    Ok(vec![
        figure("one of two killed: lost", lost as f64),
        figure("one of two killed: begun twice", (all - once.len()) as f64),
        figure("one of two killed: done after, s", seconds),
    ])
}

/// Tasks a second.
fn mapped(cluster: &Cluster, tasks: u64) -> Result<f64, Box<dyn Error>> {
    let begin = Instant::now();
    for (n, result) in (0..).zip(cluster.map((0..tasks).map(noop))) {
        assert_eq!(result?, n);
    }
    Ok(tasks as f64 / begin.elapsed().as_secs_f64())
}

fn measure(cluster: &Cluster, tasks: u64) -> Result<Figures, Box<dyn Error>> {
    // Both agents have work, and their workers have started.
    for future in as_completed((0..1000).map(|n| cluster.submit(noop(n)))) {
        future.result()?;
    }
    let begin = Instant::now();
    for future in as_completed((0..tasks).map(|n| cluster.submit(noop(n)))) {
        future.result()?;
    }
    let submitted = tasks as f64 / begin.elapsed().as_secs_f64();
    let mapped = mapped(cluster, tasks)?;
    let begin = Instant::now();
    for n in 0..1000 {
        cluster.submit(noop(n)).result()?;
    }
    let one = begin.elapsed().as_secs_f64() * 1e6 / 1000.0;
    let agents = cluster.hosts().len() as f64;
    cluster.shutdown(Shutdown::Wait);
    Ok(vec![
        ("agents".to_owned(), agents),
        ("slots of each".to_owned(), slots() as f64),
        ("submit + as_completed, tasks/s".to_owned(), submitted),
        ("map, tasks/s".to_owned(), mapped),
        ("one in flight, us".to_owned(), one),
    ])
}

fn slots() -> usize {
    env::var(SLOTS_VARIABLE).ok().and_then(|slots| slots.parse().ok()).unwrap_or(SLOTS)
}
