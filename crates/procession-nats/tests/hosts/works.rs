//! What a cluster does when nothing goes wrong, and what it says when tasks do.

use std::time::Duration;

use libtest_mimic::Trial;
use procession::{
    Engine, Executor, ProcessPool, Sequential, Shutdown, TaskError, TaskOptions, ThreadPool,
    as_completed,
};
use procession_nats::ClusterEvent;

use crate::harness::eventually;
use crate::place::{AgentKind, Place};
use crate::tasks::{crash, crash_if_ten, half, hang, noted, notes, square};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        the_same_program_has_the_same_results_on_four_executors,
        the_errors_of_tasks_and_the_deaths_of_workers_arrive_typed,
        a_deadline_is_kept_by_the_host_that_runs_the_task,
        a_wrong_build_never_runs_a_task_and_is_told,
        callbacks_may_wait_for_other_tasks_of_the_cluster,
        tasks_in_chunks_have_the_results_of_their_own,
        short_tasks_of_a_map_travel_together_and_long_ones_alone,
        a_cluster_is_made_used_and_dropped_in_asynchronous_code,
        ten_thousand_tasks_in_the_first_second_keep_their_records,
        after_a_shutdown_nothing_is_left_on_the_server,
        a_task_of_high_priority_overtakes_ten_thousand_of_low_priority,
    ]
}

fn results(executor: &dyn Engine) -> Vec<Result<u64, TaskError>> {
    let mapped = executor.map((0..50).map(half));
    let mut results: Vec<_> = mapped.collect();
    let squares: Vec<_> = (0..50).map(|n| executor.submit(square(n))).collect();
    let mut sum = 0;
    for future in as_completed(squares) {
        sum += future.result().expect("a square");
    }
    results.push(Ok(sum));
    results
}

fn the_same_program_has_the_same_results_on_four_executors() {
    let place = Place::new();
    let _agents = ["one", "two"].map(|host| place.agent(host, AgentKind::default()));
    let cluster = place.cluster();
    let pool = ProcessPool::builder().workers(2).build().expect("a pool");
    let expected = results(&Sequential::new());
    assert_eq!(results(&ThreadPool::new(2)), expected);
    assert_eq!(results(&pool), expected);
    assert_eq!(results(&cluster), expected);
    let stats = cluster.stats();
    assert_eq!((stats.submitted, stats.finished, stats.lost, stats.retried), (100, 100, 0, 0));
}

fn the_errors_of_tasks_and_the_deaths_of_workers_arrive_typed() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind::default());
    let cluster = place.cluster();
    let failed = cluster.submit(half(7)).result().expect_err("an odd number");
    assert_eq!(failed.to_string(), "7 is odd");
    let TaskError::WorkerDied(death) = cluster.submit(crash()).result().expect_err("a crash")
    else {
        panic!("another error");
    };
    assert_eq!((death.exit, death.attempts), (procession::Exit::Signal(6), 1));
    assert_eq!(death.host.as_deref(), Some("one"));
    assert_eq!(cluster.submit(square(3)).result(), Ok(9));
}

fn a_deadline_is_kept_by_the_host_that_runs_the_task() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind::default());
    let cluster = place.cluster();
    let options = TaskOptions::new().timeout(Duration::from_millis(300));
    let file = place.path("notes");
    let error = cluster.submit_with(options, hang(file.clone())).result().expect_err("too late");
    assert!(error.to_string().contains(" on host one"), "{error}");
    let TaskError::TimedOut { host, .. } = error else { panic!("{error}") };
    assert_eq!(host.as_deref(), Some("one"));
    assert_eq!(notes(&file).len(), 1);
}

fn a_wrong_build_never_runs_a_task_and_is_told() {
    let place = Place::new();
    let _agent = place.agent("other", AgentKind { build: "another", ..AgentKind::default() });
    let (told, tells) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let on_event =
        move |event: &ClusterEvent| drop(told.lock().expect("a sender").send(event.clone()));
    let cluster = place.builder().on_event(on_event).build().expect("a cluster");
    place.await_hosts(&cluster, &["other"]);
    let future = cluster.submit(square(2));
    let event = tells.recv_timeout(Duration::from_secs(30)).expect("an event");
    let ClusterEvent::NoHost { build, others } = event else { panic!("{event:?}") };
    assert_eq!((build.as_str(), others), (cluster.build_id(), vec!["another".to_owned()]));
    assert!(cluster.stats().without_host.expect("a time") >= Duration::from_secs(5));
    assert!(!future.is_done());
    let _right = place.agent("right", AgentKind::default());
    assert_eq!(future.result(), Ok(4));
    eventually("hosts of the build", || cluster.stats().without_host.is_none());
}

fn callbacks_may_wait_for_other_tasks_of_the_cluster() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind::default());
    let cluster = std::sync::Arc::new(place.cluster());
    let (sender, results) = std::sync::mpsc::channel();
    for n in 0..8 {
        let (sender, other) = (sender.clone(), std::sync::Arc::clone(&cluster));
        cluster.submit(square(n)).on_done(move |result| {
            let more = other.submit(square(*result.as_ref().expect("a square"))).result();
            sender.send(more).expect("a test that waits");
        });
    }
    let mut all: Vec<_> = (0..8).map(|_| results.recv().expect("a result")).collect();
    all.sort_by_key(|result| result.clone().ok());
    assert!(all.into_iter().eq((0..8_u64).map(|n| Ok(n.pow(4)))));
}

fn tasks_in_chunks_have_the_results_of_their_own() {
    let place = Place::new();
    let _agents = ["one", "two"].map(|host| place.agent(host, AgentKind::default()));
    // In a job that has a name all chunks have this size.
    let cluster = place.builder().job("sevens").map_chunks(7).build().expect("a cluster");
    let expected: Vec<_> = Sequential::new().map((0..500).map(half)).collect();
    assert_eq!(cluster.map((0..500).map(half)).collect::<Vec<_>>(), expected);
    let mut unordered: Vec<_> = cluster.map_unordered((0..100).map(square)).collect();
    unordered.sort_by_key(|(index, _)| *index);
    assert!(unordered.into_iter().eq((0..100).map(|n| (n as usize, Ok(n * n)))));
    let crashes = cluster.map((0..20).map(crash_if_ten));
    let failed: Vec<_> = crashes.enumerate().filter(|(_, result)| result.is_err()).collect();
    let [(10, Err(TaskError::WorkerDied(death)))] = &failed[..] else { panic!("{failed:?}") };
    assert!(death.host.is_some(), "{death}");
    assert_eq!((cluster.stats().submitted, cluster.stats().finished), (620, 620));
    // An endless map is dropped.
    assert_eq!(cluster.map((0..).map(square)).nth(50), Some(Ok(2500)));
}

fn short_tasks_of_a_map_travel_together_and_long_ones_alone() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind { slots: 16, ..AgentKind::default() });
    let cluster = place.builder().map_chunks(100).build().expect("a cluster");
    let file = place.path("notes");
    let squares = |count: u64| {
        let before = place.taken("procession-tasks");
        assert!(cluster.map((0..count).map(square)).eq((0..count).map(|n| Ok(n * n))));
        place.taken("procession-tasks") - before
    };
    let long = |count: u64| {
        let before = place.taken("procession-tasks");
        let tasks = (0..count).map(|n| noted(file.clone(), n, 30));
        assert!(cluster.map(tasks).eq((0..count).map(Ok)));
        place.taken("procession-tasks") - before
    };
    assert_eq!(squares(100), 100, "nothing is known of their run times");
    let messages = squares(2000);
    assert!(messages < 1000, "{messages} messages for 2,000 short tasks");
    // These are still expected to be short.
    long(100);
    assert_eq!(long(50), 50, "long tasks go one by one");
    assert_eq!(notes(&file).len(), 150);
}

fn a_cluster_is_made_used_and_dropped_in_asynchronous_code() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let cluster = place.cluster();
        assert_eq!(cluster.submit(square(5)).await, Ok(25));
        let overview =
            procession_nats::overview(&procession_nats::ConnectSettings::new(place.url()));
        assert_eq!(overview.expect("an answer").hosts.len(), 1);
    });
}

fn ten_thousand_tasks_in_the_first_second_keep_their_records() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind { slots: 64, ..AgentKind::default() });
    let cluster = place.builder().map_chunks(64).build().expect("a cluster");
    let squares = cluster.map((0..60_000).map(square));
    assert!(squares.eq((0..60_000).map(|n| Ok(n * n))));
}

fn after_a_shutdown_nothing_is_left_on_the_server() {
    let place = Place::new();
    let cluster = place.cluster();
    let futures: Vec<_> = (0..100).map(|n| cluster.submit(square(n))).collect();
    cluster.shutdown(Shutdown::CancelPending);
    assert!(futures.iter().all(|future| future.is_done()));
    let late = cluster.submit(square(1)).result().expect_err("too late");
    assert_eq!(late, TaskError::PoolBroken(procession::PoolError::ShutDown));
    assert_eq!(place.messages("procession-tasks"), 0);
    assert_eq!(place.messages("procession-records"), 0);
}

fn a_task_of_high_priority_overtakes_ten_thousand_of_low_priority() {
    const LOW: u64 = 10_000;
    let place = Place::new();
    let cluster = place.cluster();
    let low = TaskOptions::new().priority(-1);
    let lows: Vec<_> = (0..LOW).map(|n| cluster.submit_with(low, square(n))).collect();
    eventually("a full queue", || place.messages("procession-tasks") == LOW);
    let kind = AgentKind { workers: 1, ..AgentKind::default() };
    let _agent = place.agent("one", kind);
    eventually("some results", || cluster.stats().finished > 0);
    let before = cluster.stats().finished;
    let normal = cluster.submit(square(3));
    let high = cluster.submit_with(TaskOptions::new().priority(1), square(4));
    assert_eq!(high.result(), Ok(16));
    assert_eq!(normal.result(), Ok(9));
    let overtaken = LOW + 2 - cluster.stats().finished;
    assert!(overtaken > LOW / 2, "{overtaken} were overtaken after {before}");
    for (n, future) in (0..).zip(lows) {
        assert_eq!(future.result(), Ok(n * n));
    }
}
