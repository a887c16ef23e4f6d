//! Agents that are killed, stopped, drained.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{
    Context, Executor, Future, PoolError, ProcessPool, Registry, Retries, Shutdown, TaskError,
    TaskOptions,
};
use procession_nats::{Agent, Cluster, ConnectSettings};
use rustix::process::Signal;

use crate::harness::{Gate, eventually, stop};
use crate::place::{AgentKind, Place};
use crate::tasks::{gated, hang_on, note, noted, notes, poison, square};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_task_of_a_host_that_was_killed_was_begun_once_and_its_error_names_the_host,
        with_retries_nothing_is_lost_with_a_host_that_is_killed_in_mid_run,
        without_retries_only_what_a_killed_host_had_begun_is_affected,
        attempts_on_hosts_that_were_lost_are_counted_by_tasks_and_errors,
        a_result_of_a_host_that_was_stopped_for_long_is_refused,
        a_task_that_kills_its_agents_stops_at_its_attempts,
        an_agent_that_is_drained_finishes_what_it_has_and_nothing_is_lost,
        an_agent_that_loses_its_lease_kills_tasks_that_have_a_long_grace_period,
        the_error_of_a_broken_pool_is_not_that_of_the_cluster_and_its_tasks_move,
        a_long_lease_of_one_host_is_not_judged_by_the_short_one_of_another,
    ]
}

const SHORT: AgentKind = AgentKind { workers: 2, slots: 2, lease_ms: 1000, build: "-" };

fn run_many(cluster: &Cluster, place: &Place, tasks: u64) -> Vec<Future<u64>> {
    (0..tasks).map(|n| cluster.submit(noted(place.path("notes"), n, 2))).collect()
}

fn a_task_of_a_host_that_was_killed_was_begun_once_and_its_error_names_the_host() {
    let place = Place::new();
    let (gate, file) = (Gate::new(), place.path("notes"));
    let cluster = place.cluster();
    let doomed = place.agent("doomed", SHORT);
    let futures: Vec<_> =
        (0..2).map(|n| cluster.submit(gated(file.clone(), gate.path(), n))).collect();
    gate.await_arrivals(2);
    let unbegun: Vec<_> = (0..10).map(|n| cluster.submit(square(n))).collect();
    doomed.signal(Signal::KILL);
    for future in futures {
        let error = future.result().expect_err("its host was lost");
        let TaskError::HostLost { task, host, attempts } = error else { panic!("{error}") };
        assert!(task.ends_with("gated"), "{task}");
        assert_eq!((host.as_str(), attempts), ("doomed", 1));
    }
    let _other = place.agent("other", SHORT);
    for (n, future) in (0..).zip(unbegun) {
        assert_eq!(future.result(), Ok(n * n), "it had not begun");
    }
    assert_eq!(notes(&file), [0, 1]);
    assert_eq!(cluster.stats().lost, 2);
}

/// Runs tasks on two hosts, and kills the host `doomed` in the middle of them. The leases are long, so that a host
/// that gets no processor for a while does not lose its tasks, too.
fn kill_in_mid_run(place: &Place, cluster: &Cluster, tasks: u64) -> Vec<Result<u64, TaskError>> {
    const PATIENT: AgentKind = AgentKind { lease_ms: 10_000, ..SHORT };
    let doomed = place.agent("doomed", PATIENT);
    let _other = place.agent("other", PATIENT);
    let futures = run_many(cluster, place, tasks);
    let file = place.path("notes");
    eventually("some tasks", || notes(&file).len() > 100);
    doomed.signal(Signal::KILL);
    futures.into_iter().map(Future::result).collect()
}

fn with_retries_nothing_is_lost_with_a_host_that_is_killed_in_mid_run() {
    const TASKS: u64 = 1000;
    let place = Place::new();
    let cluster = place.builder().attempts(3).build().expect("a cluster");
    let results = kill_in_mid_run(&place, &cluster, TASKS);
    assert_begun_again(&place, &cluster, results, SHORT.slots);
}

/// All tasks have results. At most `slots` tasks began twice: as many as a host runs at a time.
#[track_caller]
pub(crate) fn assert_begun_again(
    place: &Place,
    cluster: &Cluster,
    results: Vec<Result<u64, TaskError>>,
    slots: usize,
) {
    let tasks = results.len();
    assert!(results.into_iter().eq((0..tasks as u64).map(Ok)));
    let twice = notes(&place.path("notes")).len() - tasks;
    assert!(twice <= slots, "{twice} tasks began twice");
    assert_eq!(cluster.stats().lost, 0);
}

fn without_retries_only_what_a_killed_host_had_begun_is_affected() {
    const TASKS: u64 = 1000;
    let place = Place::new();
    let cluster = place.cluster();
    let results = kill_in_mid_run(&place, &cluster, TASKS);
    assert_lost_once(&place, &cluster, results, SHORT.slots);
}

/// At most `slots` tasks are lost, as many as the host `doomed` runs at a time. No task began twice.
#[track_caller]
pub(crate) fn assert_lost_once(
    place: &Place,
    cluster: &Cluster,
    results: Vec<Result<u64, TaskError>>,
    slots: usize,
) {
    let lost: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(lost.len() <= slots, "{lost:?} of {slots} slots");
    for error in &lost {
        assert!(matches!(error, TaskError::HostLost { host, .. } if host == "doomed"), "{error}");
    }
    assert_eq!(cluster.stats().lost, lost.len() as u64);
    let (begun, mut once) = (notes(&place.path("notes")), notes(&place.path("notes")));
    once.dedup();
    assert_eq!(begun, once, "no task began twice");
}

/// Waits in its first attempt, and crashes in the second one if it is asked to.
#[procession::task]
fn counts_attempts(context: &Context, file: PathBuf, crashes: bool) -> u32 {
    note(&file, u64::from(context.attempt()));
    match context.attempt() {
        1 => loop {
            thread::sleep(Duration::from_secs(1));
        },
        2 if crashes => std::process::abort(),
        attempt => attempt,
    }
}

fn attempts_on_hosts_that_were_lost_are_counted_by_tasks_and_errors() {
    let (place, options) = (Place::new(), TaskOptions::new().retries(Retries::none()));
    let file = place.path("notes");
    let cluster = place.builder().attempts(2).build().expect("a cluster");
    let doomed = place.agent("doomed", SHORT);
    let submit = |crashes| cluster.submit_with(options, counts_attempts(file.clone(), crashes));
    let (returns, crashes) = (submit(false), submit(true));
    eventually("both tasks", || notes(&file) == [1, 1]);
    doomed.signal(Signal::KILL);
    let _other = place.agent("other", SHORT);
    assert_eq!(returns.result(), Ok(2));
    let TaskError::WorkerDied(death) = crashes.result().expect_err("a crash") else {
        panic!("another error");
    };
    assert_eq!((death.attempts, death.host.as_deref()), (2, Some("other")));
}

fn a_result_of_a_host_that_was_stopped_for_long_is_refused() {
    let place = Place::new();
    let (gate, file) = (Gate::new(), place.path("notes"));
    let cluster = place.builder().attempts(2).build().expect("a cluster");
    let mut stopped = place.agent("stopped", SHORT);
    let future = cluster.submit(gated(file.clone(), gate.path(), 7));
    gate.await_arrivals(1);
    stop(stopped.pid());
    let _other = place.agent("other", SHORT);
    gate.await_arrivals(2); // the second attempt
    gate.open();
    assert_eq!(future.result(), Ok(7));
    assert_eq!(notes(&file), [7, 7]);
    // The first run has its result by now; when the agent goes on, it is fenced, and works again.
    stopped.signal(Signal::CONT);
    place.await_hosts(&cluster, &["stopped"]);
    let futures: Vec<_> =
        (0..50).map(|n| cluster.submit(noted(file.clone(), n + 10, 20))).collect();
    for (n, future) in (10..).zip(futures) {
        assert_eq!(future.result(), Ok(n));
    }
    assert!(!stopped.has_ended());
    assert_eq!(notes(&file).len(), 52);
}

fn a_task_that_kills_its_agents_stops_at_its_attempts() {
    let place = Place::new();
    let file = place.path("notes");
    let cluster = place.builder().attempts(2).build().expect("a cluster");
    let mut agents: Vec<_> =
        ["a", "b", "c"].map(|host| place.agent(host, AgentKind { slots: 1, ..SHORT })).into();
    place.await_hosts(&cluster, &["a", "b", "c"]);
    let error = cluster.submit(poison(file.clone())).result().expect_err("poison");
    let TaskError::HostLost { host, attempts, .. } = error else { panic!("{error}") };
    assert_eq!(attempts, 2);
    assert_eq!(notes(&file).len(), 2);
    let ended: Vec<_> =
        agents.iter_mut().map(|agent| (agent.host.clone(), agent.has_ended())).collect();
    assert_eq!(ended.iter().filter(|(_, has_ended)| *has_ended).count(), 2, "{ended:?}");
    assert!(ended.contains(&(host, true)));
    assert_eq!(cluster.submit(square(5)).result(), Ok(25));
}

fn an_agent_that_is_drained_finishes_what_it_has_and_nothing_is_lost() {
    let place = Place::new();
    let cluster = place.cluster();
    let mut drained = place.agent("drained", SHORT);
    let _other = place.agent("other", SHORT);
    let futures = run_many(&cluster, &place, 300);
    let file = place.path("notes");
    eventually("some tasks", || notes(&file).len() > 30);
    drained.signal(Signal::TERM);
    // Within a moment it is the same request.
    drained.signal(Signal::INT);
    for (n, future) in (0..).zip(futures) {
        assert_eq!(future.result(), Ok(n));
    }
    assert_eq!(notes(&file), (0..300).collect::<Vec<_>>());
    eventually("the end of the agent", || drained.has_ended());
    eventually("its lease to be gone", || cluster.hosts().iter().all(|it| it.host != "drained"));
}

fn a_long_lease_of_one_host_is_not_judged_by_the_short_one_of_another() {
    let place = Place::new();
    let (gate, file) = (Gate::new(), place.path("notes"));
    let cluster = place.builder().attempts(2).build().expect("a cluster");
    let patient = place.agent("patient", AgentKind { lease_ms: 30_000, ..SHORT });
    let future = cluster.submit(gated(file.clone(), gate.path(), 1));
    gate.await_arrivals(1);
    let _hasty = place.agent("hasty", SHORT);
    place.await_hosts(&cluster, &["patient", "hasty"]);
    stop(patient.pid());
    std::thread::sleep(Duration::from_secs(3)); // two of the short leases
    patient.signal(Signal::CONT);
    gate.open();
    assert_eq!(future.result(), Ok(1));
    assert_eq!(notes(&file), [1], "it was not taken away");
}

fn an_agent_that_loses_its_lease_kills_tasks_that_have_a_long_grace_period() {
    let mut place = Place::new();
    let file = place.path("notes");
    let cluster = place.cluster();
    let mut agent = place.agent("cut-off", SHORT);
    let options = TaskOptions::new().grace(Duration::from_secs(600));
    let _future = cluster.submit_with(options, hang_on(file.clone()));
    eventually("a run", || notes(&file).len() == 1);
    let worker = rustix::process::Pid::from_raw(notes(&file)[0] as i32).expect("an id");
    assert!(rustix::process::test_kill_process(worker).is_ok());
    place.kill_server();
    eventually("the end of the worker", || rustix::process::test_kill_process(worker).is_err());
    assert!(!agent.has_ended());
}

fn the_error_of_a_broken_pool_is_not_that_of_the_cluster_and_its_tasks_move() {
    let place = Place::new();
    let cluster = place.builder().attempts(2).build().expect("a cluster");
    let pool = ProcessPool::builder().workers(1).build().expect("a pool");
    pool.shutdown(Shutdown::Kill);
    let settings = ConnectSettings::new(place.url());
    let builder = Agent::builder(settings, Registry::collected()).host_name("broken");
    let broken = builder.lease(Duration::from_secs(1)).start(pool).expect("an agent");
    place.await_hosts(&cluster, &["broken"]);
    let future = cluster.submit(square(4));
    assert_eq!(broken.wait(), Err(PoolError::ShutDown));
    let _other = place.agent("other", SHORT);
    assert_eq!(future.result(), Ok(16));
    assert_eq!(cluster.stats().retried, 1);
}
