//! Servers that are killed, stopped, away, and streams that are deleted; messages that are lost and doubled.

use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use procession::{Executor, PoolError, TaskError};
use procession_nats::{ClusterEvent, ConnectSettings, NoLogs, fetch_logs, overview};
use rustix::process::Signal;

use crate::harness::{Gate, eventually, signal, stop};
use crate::place::{AgentKind, Place};
use crate::tasks::{gated, noted, notes, square};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_server_that_is_killed_in_mid_run_costs_no_task_and_doubles_none,
        the_same_holds_if_the_server_syncs_each_write,
        after_a_server_was_away_the_work_goes_on,
        a_server_that_was_stopped_for_five_seconds_costs_no_task_and_doubles_none,
        if_the_server_goes_while_logs_are_fetched_they_are_not_waited_for,
        if_a_stream_is_deleted_every_future_fails_and_says_so,
        tasks_that_the_server_refuses_fail_and_make_room_for_later_ones,
        a_message_that_the_queue_has_lost_is_sent_again,
        a_message_that_comes_again_after_its_task_has_ended_begins_nothing,
        a_task_that_takes_ten_times_as_long_as_an_acknowledgement_may_runs_once,
    ]
}

/// Longer than a server takes to start again.
const LONG: AgentKind = AgentKind { workers: 2, slots: 4, lease_ms: 20_000, build: "-" };

fn kill_in_mid_run(mut place: Place) {
    const TASKS: u64 = 1500;
    let _agents = ["one", "two"].map(|host| place.agent(host, LONG));
    let cluster = place.cluster();
    let file = place.path("notes");
    let futures: Vec<_> = (0..TASKS).map(|n| cluster.submit(noted(file.clone(), n, 2))).collect();
    for at in [200, 700] {
        eventually("some tasks", || notes(&file).len() > at);
        place.restart_server();
    }
    for (n, future) in (0..).zip(futures) {
        assert_eq!(future.result(), Ok(n));
    }
    assert_eq!(notes(&file), (0..TASKS).collect::<Vec<_>>(), "none lost, none twice");
}

fn a_server_that_is_killed_in_mid_run_costs_no_task_and_doubles_none() {
    kill_in_mid_run(Place::new());
}

fn the_same_holds_if_the_server_syncs_each_write() {
    kill_in_mid_run(Place::with("sync_interval: always"));
}

fn after_a_server_was_away_the_work_goes_on() {
    let mut place = Place::new();
    let _agent = place.agent("one", LONG);
    let cluster = place.cluster();
    let file = place.path("notes");
    let futures: Vec<_> = (0..200).map(|n| cluster.submit(noted(file.clone(), n, 5))).collect();
    eventually("some tasks", || notes(&file).len() > 20);
    place.kill_server();
    thread::sleep(Duration::from_secs(10));
    let before = notes(&file).len();
    place.start();
    let back = Instant::now();
    eventually("further tasks", || notes(&file).len() > before);
    println!("goes on {:?} after the server is back", back.elapsed());
    for (n, future) in (0..).zip(futures) {
        assert_eq!(future.result(), Ok(n));
    }
    assert_eq!(notes(&file), (0..200).collect::<Vec<_>>());
}

fn a_server_that_was_stopped_for_five_seconds_costs_no_task_and_doubles_none() {
    let place = Place::new();
    let _agent = place.agent("one", LONG);
    let cluster = place.cluster();
    let file = place.path("notes");
    let futures: Vec<_> = (0..300).map(|n| cluster.submit(noted(file.clone(), n, 5))).collect();
    eventually("some tasks", || notes(&file).len() > 20);
    stop(place.server_pid());
    thread::sleep(Duration::from_secs(5));
    signal(place.server_pid(), Signal::CONT);
    for (n, future) in (0..).zip(futures) {
        assert_eq!(future.result(), Ok(n));
    }
    assert_eq!(notes(&file), (0..300).collect::<Vec<_>>());
}

fn if_the_server_goes_while_logs_are_fetched_they_are_not_waited_for() {
    let mut place = Place::new();
    let agent = place.agent("one", LONG);
    let settings = ConnectSettings::new(place.url());
    eventually("an agent", || overview(&settings).is_ok_and(|seen| !seen.hosts.is_empty()));
    // It does not answer.
    stop(agent.pid());
    let mut fetching = None;
    place.hear("procession.c.>", || {
        let fetch = move || fetch_logs(&settings, Duration::from_secs(24 * 60 * 60));
        fetching = Some(thread::spawn(fetch));
    });
    // Then most likely no request is on its way, and the next one waits for the connection.
    thread::sleep(Duration::from_millis(500));
    place.kill_server();
    let fetching = fetching.expect("a thread");
    eventually("the end of the fetch", || fetching.is_finished());
    let fetched = fetching.join().expect("no panic").expect("agents");
    assert!(matches!(fetched[0].logs, Err(NoLogs::Failed(_))), "{fetched:?}");
}

fn if_a_stream_is_deleted_every_future_fails_and_says_so() {
    let buckets = ["KV_procession-hosts", "OBJ_procession-bodies"];
    for stream in ["procession-tasks", "procession-records"].into_iter().chain(buckets) {
        let place = Place::new();
        let (gate, file) = (Gate::new(), place.path("notes"));
        let _agent = place.agent("one", LONG);
        let cluster = place.cluster();
        let running = cluster.submit(gated(file, gate.path(), 1));
        gate.await_arrivals(1);
        let queued: Vec<_> =
            (0..20).map(|n| cluster.submit(gated(place.path("notes"), gate.path(), n))).collect();
        place.api(&format!("STREAM.DELETE.{stream}"), "");
        for future in queued.into_iter().chain([running]) {
            let error = future.result().expect_err("a broken cluster");
            let TaskError::PoolBroken(PoolError::Broker(why)) = error else { panic!("{error}") };
            assert!(why.contains(stream), "{why}");
        }
        let late = cluster.submit(square(1)).result().expect_err("a broken cluster");
        assert!(matches!(late, TaskError::PoolBroken(PoolError::Broker(_))), "{late}");
    }
}

fn tasks_that_the_server_refuses_fail_and_make_room_for_later_ones() {
    // As many as are on their way at the same time: the server refuses them for 30 s.
    const TASKS: u64 = 1024;
    let place = Place::new();
    let cluster = place.cluster();
    let limit = |messages: i64| {
        let info = place.api("STREAM.INFO.procession-tasks", "");
        let mut config = info["config"].clone();
        config["max_msgs"] = messages.into();
        let answer = place.api("STREAM.UPDATE.procession-tasks", &config.to_string());
        assert!(answer["error"].is_null(), "{answer}");
    };
    limit(1);
    let first = cluster.submit(square(1));
    eventually("a full queue", || place.messages("procession-tasks") == 1);
    let futures: Vec<_> = (0..TASKS).map(|n| cluster.submit(square(n))).collect();
    for future in futures {
        let error = future.result().expect_err("a full queue");
        assert!(matches!(error, TaskError::PoolBroken(PoolError::Broker(_))), "{error}");
    }
    eventually("removed records", || place.messages("procession-records") == 1);
    limit(-1);
    let _agent = place.agent("one", LONG);
    assert_eq!(first.result(), Ok(1));
    assert_eq!(cluster.submit(square(3)).result(), Ok(9));
}

fn a_message_that_the_queue_has_lost_is_sent_again() {
    let place = Place::new();
    let (told, tells) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let on_event =
        move |event: &ClusterEvent| drop(told.lock().expect("a sender").send(event.clone()));
    let cluster = place.builder().on_event(on_event).build().expect("a cluster");
    let futures: Vec<_> = (0..20).map(|n| cluster.submit(square(n))).collect();
    eventually("messages in the queue", || place.messages("procession-tasks") == 20);
    let purged = place.api("STREAM.PURGE.procession-tasks", "");
    assert_eq!(purged["purged"].as_u64(), Some(20));
    let event = tells.recv_timeout(Duration::from_secs(30)).expect("an event");
    assert!(matches!(event, ClusterEvent::Requeued(_)), "{event:?}");
    let _agent = place.agent("one", LONG);
    for (n, future) in (0..).zip(futures) {
        assert_eq!(future.result(), Ok(n * n));
    }
}

fn a_message_that_comes_again_after_its_task_has_ended_begins_nothing() {
    let place = Place::new();
    let cluster = place.cluster();
    let file = place.path("notes");
    let futures: Vec<_> = (0..10).map(|n| cluster.submit(noted(file.clone(), n, 1))).collect();
    eventually("messages in the queue", || place.messages("procession-tasks") == 10);
    let kept: Vec<_> = (1..=10).map(|seq| place.kept("procession-tasks", seq)).collect();
    let _agent = place.agent("one", LONG);
    for (n, future) in (0..).zip(futures) {
        assert_eq!(future.result(), Ok(n));
    }
    // As a server does that has forgotten acknowledgements: once with the records, once without them.
    for _ in 0..2 {
        for (subject, payload) in &kept {
            place.publish(subject, payload.clone());
        }
        eventually("an empty queue", || place.messages("procession-tasks") == 0);
        place.api("STREAM.PURGE.procession-records", "");
    }
    assert_eq!(notes(&file), (0..10).collect::<Vec<_>>());
}

fn a_task_that_takes_ten_times_as_long_as_an_acknowledgement_may_runs_once() {
    let place = Place::new();
    let _agents = ["one", "two"].map(|host| place.agent(host, LONG));
    let cluster = place.cluster();
    let file = place.path("notes");
    // A message that was not acknowledged comes again after 3 s.
    let future = cluster.submit(noted(file.clone(), 1, 30_000));
    assert_eq!(future.result(), Ok(1));
    assert_eq!(notes(&file), [1]);
}
