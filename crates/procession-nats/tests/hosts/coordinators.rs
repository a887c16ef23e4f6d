//! Coordinators that are killed, and several at a time.

use libtest_mimic::Trial;
use procession::Executor;
use procession_nats::{Cluster, ConnectSettings};

use crate::harness::eventually;
use crate::place::{self, AgentKind, Place};
use crate::tasks::{noted, notes, square};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        what_a_killed_coordinator_had_queued_runs_at_most_once_and_the_agents_go_on,
        several_coordinators_share_the_agents,
    ]
}

pub(crate) fn play_if_asked() {
    let Some(arguments) = place::asked() else { return };
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    if let ["coordinator", url, file] = arguments[..] {
        place::end_with_input();
        let cluster = Cluster::builder(ConnectSettings::new(url)).build().expect("a cluster");
        let futures: Vec<_> = (0..500).map(|n| cluster.submit(noted(file.into(), n, 5))).collect();
        println!("submitted");
        for future in futures {
            let _ = future.result();
        }
        std::process::exit(0);
    }
}

fn what_a_killed_coordinator_had_queued_runs_at_most_once_and_the_agents_go_on() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind::default());
    let file = place.path("notes");
    let mut coordinator = place::role(&format!("coordinator {} {}", place.url(), file.display()));
    eventually("some tasks", || notes(&file).len() > 50);
    coordinator.kill().expect("a coordinator");
    coordinator.wait().expect("its end");
    let cluster = place.cluster();
    let futures: Vec<_> = (0..100).map(|n| cluster.submit(square(n))).collect();
    for (n, future) in (0..).zip(futures) {
        assert_eq!(future.result(), Ok(n * n));
    }
    eventually("an empty queue", || place.messages("procession-tasks") == 0);
    let all = notes(&file);
    let mut once = all.clone();
    once.dedup();
    assert_eq!(once, all, "none began twice");
}

fn several_coordinators_share_the_agents() {
    let place = Place::new();
    let _agents = ["one", "two"].map(|host| place.agent(host, AgentKind::default()));
    let clusters: Vec<_> = (0..3).map(|_| place.cluster()).collect();
    let futures: Vec<_> = (0..60).map(|n| clusters[n as usize % 3].submit(square(n))).collect();
    for (n, future) in (0..).zip(futures) {
        assert_eq!(future.result(), Ok(n * n));
    }
}
