//! Messages that come again although the server has forgotten that it had them, and answers that are lost.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Executor, ProcessPool, Registry};
use procession_nats::{Agent, Cluster, ConnectSettings};
use rustix::process::Signal;

use crate::configured::{ConfiguredServer, free_port};
use crate::harness::{eventually, signal, stop};
use crate::place::{self, AgentKind, Place};
use crate::tasks::{note, noted, notes};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_copy_of_a_message_that_comes_after_the_window_for_duplicates_begins_nothing,
        tasks_whose_confirmations_are_lost_run_once,
        a_coordinator_that_is_too_slow_for_its_server_gets_all_results,
    ]
}

#[procession::task]
fn long_text(file: PathBuf, n: u64) -> String {
    note(&file, n);
    n.to_string().repeat(60_000)
}

pub(crate) fn play_if_asked() {
    let Some(arguments) = place::asked() else { return };
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let ["slow-coordinator", url, file] = arguments[..] else { return };
    place::end_with_input();
    let cluster = Cluster::builder(ConnectSettings::new(url)).build().expect("a cluster");
    let texts: Vec<_> = (0..TEXTS).map(|n| cluster.submit(long_text(file.into(), n))).collect();
    for (n, text) in (0..TEXTS).zip(texts) {
        assert_eq!(text.result(), Ok(n.to_string().repeat(60_000)));
    }
    println!("{TEXTS} texts");
    std::process::exit(0);
}

const TEXTS: u64 = 150;

fn a_coordinator_that_is_too_slow_for_its_server_gets_all_results() {
    // It drops connections on which so much waits.
    let config = "jetstream {}\nmax_pending: 1MB\nwrite_deadline: \"500ms\"\n";
    let server = ConfiguredServer::start(config, free_port(), &[]);
    let file = server.path("notes");
    let role = format!("slow-coordinator {} {}", server.url(), file.display());
    let mut slow = place::role(&role);
    let pool = ProcessPool::builder().workers(2).build().expect("a pool");
    let builder = Agent::builder(ConnectSettings::new(server.url()), Registry::collected());
    let _agent = builder.slots(8).start(pool).expect("an agent");
    eventually("some tasks", || notes(&file).len() > 10);
    stop(slow.id());
    eventually("a connection that was dropped", || server.log().contains("Slow Consumer"));
    signal(slow.id(), Signal::CONT);
    let mut printed = String::new();
    slow.stdout.take().expect("an output").read_to_string(&mut printed).expect("text");
    assert!(slow.wait().expect("its end").success());
    assert_eq!(printed, format!("{TEXTS} texts\n"));
    assert_eq!(notes(&file), (0..TEXTS).collect::<Vec<_>>(), "none twice");
}

fn a_copy_of_a_message_that_comes_after_the_window_for_duplicates_begins_nothing() {
    const TASKS: u64 = 20;
    let place = Place::new();
    let cluster = place.cluster();
    let info = place.api("STREAM.INFO.procession-tasks", "");
    let mut config = info["config"].clone();
    config["duplicate_window"] = 100_000_000_u64.into();
    let answer = place.api("STREAM.UPDATE.procession-tasks", &config.to_string());
    assert!(answer["error"].is_null(), "{answer}");
    let file = place.path("notes");
    let futures: Vec<_> = (0..TASKS).map(|n| cluster.submit(noted(file.clone(), n, 20))).collect();
    eventually("messages in the queue", || place.messages("procession-tasks") == TASKS);
    let kept: Vec<_> = (1..=TASKS).map(|seq| place.kept("procession-tasks", seq)).collect();
    thread::sleep(Duration::from_millis(300));
    // While they wait, and while some of them run: the server takes each copy for a new message.
    let copy = || kept.iter().for_each(|(subject, body)| place.publish(subject, body.clone()));
    copy();
    assert_eq!(place.messages("procession-tasks"), 2 * TASKS, "the window is over");
    let _agents = ["one", "two"].map(|host| place.agent(host, AgentKind::default()));
    eventually("a run", || !notes(&file).is_empty());
    copy();
    for (n, future) in (0..).zip(futures) {
        assert_eq!(future.result(), Ok(n));
    }
    copy();
    eventually("an empty queue", || place.messages("procession-tasks") == 0);
    assert_eq!(notes(&file), (0..TASKS).collect::<Vec<_>>(), "none twice");
}

/// Passes on what goes to a server and back, and ends some connections after a message for the queue has gone to
/// the server and before anything comes back.
struct LossyRoad {
    port: u16,
    losses: Arc<AtomicUsize>,
}

impl LossyRoad {
    fn to(server: &str, most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let losses = Arc::new(AtomicUsize::new(0));
        let (server, counted) = (server.to_owned(), Arc::clone(&losses));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                pass(client, server, most, &counted);
            }
        });
        Self { port, losses }
    }
}

fn pass(client: TcpStream, server: TcpStream, most: usize, losses: &Arc<AtomicUsize>) {
    let (mut from, mut to) = (client.try_clone().expect("a copy"), server.try_clone().expect("it"));
    let losses = Arc::clone(losses);
    let (mut answers, mut back) = (server, client);
    thread::spawn(move || drop(std::io::copy(&mut answers, &mut back)));
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        // Each connection passes some messages on, so that there is progress.
        let mut passed = 0;
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let some = &buffer[..read];
            let is_task = some.windows(13).any(|part| part == b" procession.t");
            passed += usize::from(is_task);
            let is_lost = passed > 2 && is_task && losses.load(Ordering::SeqCst) < most;
            if is_lost {
                losses.fetch_add(1, Ordering::SeqCst);
                // Nothing comes back any more.
                let _ = from.shutdown(Shutdown::Both);
            }
            if to.write_all(some).is_err() || is_lost {
                break;
            }
        }
        // What was written has arrived before the end does.
        let _ = to.shutdown(Shutdown::Write);
    });
}

fn tasks_whose_confirmations_are_lost_run_once() {
    const TASKS: u64 = 60;
    const LOSSES: usize = 5;
    let place = Place::new();
    let road = LossyRoad::to(place.url().trim_start_matches("nats://"), LOSSES);
    let url = format!("nats://127.0.0.1:{}", road.port);
    let cluster = Cluster::builder(ConnectSettings::new(url)).build().expect("a cluster");
    let _agent = place.agent("one", AgentKind { lease_ms: 20_000, ..AgentKind::default() });
    let file = place.path("notes");
    let mut futures = Vec::new();
    for n in 0..TASKS {
        futures.push(cluster.submit(noted(file.clone(), n, 1)));
        thread::sleep(Duration::from_millis(20));
    }
    for (n, future) in (0..).zip(futures) {
        assert_eq!(future.result(), Ok(n));
    }
    assert_eq!(road.losses.load(Ordering::SeqCst), LOSSES);
    assert_eq!(notes(&file), (0..TASKS).collect::<Vec<_>>(), "none lost, none twice");
}
