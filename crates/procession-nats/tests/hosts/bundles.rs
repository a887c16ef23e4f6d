//! Short tasks that travel together: each has its own result, is cancelled alone, and is lost or begun again alone.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use libtest_mimic::Trial;
use procession::{Context, Executor, Future, Retries, TaskError, TaskOptions};
use procession_nats::{Cluster, ConnectSettings, HostSaid, overview};
use rustix::process::Signal;

use crate::agents::{assert_begun_again, assert_lost_once};
use crate::harness::{self, Gate, eventually};
use crate::place::{AgentKind, Place};
use crate::tasks::{gated, note, noted, notes, reverse};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_task_that_waits_holds_up_no_other_one_of_its_bundle_and_is_cancelled_alone,
        a_task_of_a_bundle_that_no_host_has_is_cancelled_and_the_others_run_once,
        a_bundle_is_begun_on_a_host_that_has_a_slot_but_not_one_for_each_of_its_tasks,
        short_tasks_are_not_held_up_by_those_that_stay_on_their_way_into_the_queue,
        without_retries_what_a_killed_host_had_of_a_bundle_is_lost_and_nothing_else,
        with_retries_each_task_of_a_bundle_has_a_further_attempt,
        a_server_that_is_killed_in_mid_run_costs_no_task_of_a_bundle_and_doubles_none,
        what_tasks_of_a_bundle_tell_and_how_they_end_is_their_own,
    ]
}

const MANY_SLOTS: AgentKind = AgentKind { workers: 4, slots: 64, lease_ms: 10_000, build: "-" };

/// Writes a line, and waits at a gate if there is one.
#[procession::task]
fn sometimes_waits(file: PathBuf, gate: Option<PathBuf>, n: u64) -> u64 {
    note(&file, n);
    if let Some(gate) = gate {
        harness::wait_at(&gate);
    }
    n
}

/// Runs short tasks until some travel together: the cluster has heard of their run times, and of the slots.
fn warm_up(place: &Place, cluster: &Cluster) {
    const TASKS: u64 = 200;
    let file = place.path("warm");
    eventually("tasks that travel together", || {
        let before = place.taken("procession-tasks");
        let one = |n| cluster.submit(sometimes_waits(file.clone(), None, n));
        let other = |n| cluster.submit(noted(file.clone(), n, 0));
        let futures: Vec<_> = (0..TASKS).map(one).chain((0..TASKS).map(other)).collect();
        assert!(futures.into_iter().map(Future::result).eq((0..TASKS).chain(0..TASKS).map(Ok)));
        place.taken("procession-tasks") - before < 2 * TASKS
    });
}

/// Submits tasks that keep their slots until the gate is opened.
fn run_long(place: &Place, cluster: &Cluster, gate: &Gate, tasks: u64) -> Vec<Future<u64>> {
    let long = |n| cluster.submit(gated(place.path("long"), gate.path(), n));
    (0..tasks).map(long).collect()
}

fn a_task_that_waits_holds_up_no_other_one_of_its_bundle_and_is_cancelled_alone() {
    const TASKS: u64 = 1000;
    let place = Place::new();
    let (gate, file, cluster) = (Gate::new(), place.path("notes"), place.cluster());
    let _agent = place.agent("one", MANY_SLOTS);
    place.await_hosts(&cluster, &["one"]);
    warm_up(&place, &cluster);
    let before = place.taken("procession-records");
    let waits = |n: u64| [400, 600].contains(&n);
    let submit = |n: u64| {
        let gate = waits(n).then(|| gate.path());
        cluster.submit(sometimes_waits(file.clone(), gate, n))
    };
    let mut futures: Vec<_> = (0..TASKS).map(submit).collect();
    let cancelled = futures.remove(600);
    let waiting = futures.remove(400);
    for future in futures {
        let n = future.result().expect("a result, although others of its bundle wait");
        assert!(!waits(n));
    }
    gate.await_arrivals(2);
    eventually("two tasks that run", || cluster.stats().running == 2);
    assert!(cancelled.cancel());
    assert_eq!(cancelled.result(), Err(TaskError::Cancelled));
    assert!(!waiting.is_done());
    gate.open();
    assert_eq!(waiting.result(), Ok(400));
    assert_eq!(notes(&file), (0..TASKS).collect::<Vec<_>>(), "each began once");
    // A task that is alone has three.
    let records = place.taken("procession-records") - before;
    assert!(records < 3 * TASKS, "{records} records");
}

fn a_task_of_a_bundle_that_no_host_has_is_cancelled_and_the_others_run_once() {
    const TASKS: u64 = 400;
    let place = Place::new();
    let (gate, file, cluster) = (Gate::new(), place.path("notes"), place.cluster());
    let _agent = place.agent("one", MANY_SLOTS);
    place.await_hosts(&cluster, &["one"]);
    warm_up(&place, &cluster);
    let slots = MANY_SLOTS.slots as u64;
    let in_the_way = run_long(&place, &cluster, &gate, slots);
    eventually("a host without free slots", || cluster.stats().running == slots);
    let submit = |n: u64| cluster.submit(sometimes_waits(file.clone(), None, n));
    let futures: Vec<_> = (0..TASKS).map(submit).collect();
    let settings = ConnectSettings::new(place.url());
    eventually("all of these tasks in the queue", || {
        overview(&settings).is_ok_and(|seen| seen.waiting.values().sum::<u64>() == TASKS)
    });
    let messages = place.messages("procession-tasks");
    assert!(messages < TASKS, "{messages} messages");
    let is_cancelled = |n: u64| n.is_multiple_of(20);
    let (cancelled, others): (Vec<_>, Vec<_>) =
        (0..).zip(futures).partition(|(n, _)| is_cancelled(*n));
    assert!(cancelled.iter().all(|(_, future)| future.cancel()));
    for (_, future) in cancelled {
        assert_eq!(future.result(), Err(TaskError::Cancelled));
    }
    gate.open();
    for (n, future) in others {
        assert_eq!(future.result(), Ok(n));
    }
    let expected: Vec<_> = (0..TASKS).filter(|n| !is_cancelled(*n)).collect();
    assert_eq!(notes(&file), expected, "each began once");
    assert!(in_the_way.into_iter().map(Future::result).eq((0..slots).map(Ok)));
}

/// The host has one slot for a long time, and each bundle has two tasks.
fn a_bundle_is_begun_on_a_host_that_has_a_slot_but_not_one_for_each_of_its_tasks() {
    const TASKS: u64 = 200;
    const SLOTS: AgentKind = AgentKind { workers: 16, slots: 16, ..MANY_SLOTS };
    let place = Place::new();
    let (gate, file, cluster) = (Gate::new(), place.path("notes"), place.cluster());
    let _agent = place.agent("one", SLOTS);
    place.await_hosts(&cluster, &["one"]);
    warm_up(&place, &cluster);
    let all_but_one = SLOTS.slots as u64 - 1;
    let long = run_long(&place, &cluster, &gate, all_but_one);
    gate.await_arrivals(all_but_one as usize);
    let before = place.taken("procession-tasks");
    let futures: Vec<_> =
        (0..TASKS).map(|n| cluster.submit(sometimes_waits(file.clone(), None, n))).collect();
    eventually("short tasks beside long ones", || futures.iter().all(Future::is_done));
    let messages = place.taken("procession-tasks") - before;
    assert!(messages < TASKS, "{messages} messages");
    assert!(futures.into_iter().map(Future::result).eq((0..TASKS).map(Ok)));
    assert_eq!(notes(&file), (0..TASKS).collect::<Vec<_>>(), "each began once");
    gate.open();
    assert!(long.into_iter().map(Future::result).eq((0..all_but_one).map(Ok)));
}

/// The server refuses some tasks, which are sent again for half a minute.
fn short_tasks_are_not_held_up_by_those_that_stay_on_their_way_into_the_queue() {
    const REFUSED: usize = 8;
    const SLOTS: AgentKind = AgentKind { workers: 16, slots: 16, ..MANY_SLOTS };
    // These lines are in a block.
    let place = Place::with("}\nmax_payload: 200KB\nmappings {");
    let (gate, file, cluster) = (Gate::new(), place.path("notes"), place.cluster());
    let _agent = place.agent("one", SLOTS);
    place.await_hosts(&cluster, &["one"]);
    warm_up(&place, &cluster);
    let slots = SLOTS.slots as u64;
    let in_the_way = run_long(&place, &cluster, &gate, slots);
    gate.await_arrivals(SLOTS.slots);
    let large = || cluster.submit(reverse(vec![7; 230_000].into()));
    let refused: Vec<_> = (0..REFUSED).map(|_| large()).collect();
    let (mut short, settings) = (Vec::new(), ConnectSettings::new(place.url()));
    // Two of them are in a message, so one is left of an odd number.
    for number in [100, 101] {
        let submit = |n| cluster.submit(sometimes_waits(file.clone(), None, n));
        short.extend((short.len() as u64..number).map(submit));
        eventually("all of these tasks in the queue", || {
            overview(&settings).is_ok_and(|seen| seen.waiting.values().sum::<u64>() == number)
        });
    }
    assert!(!refused.iter().any(Future::is_done), "short tasks have waited for others");
    gate.open();
    assert!(short.into_iter().map(Future::result).eq((0..101).map(Ok)));
    assert!(in_the_way.into_iter().map(Future::result).eq((0..slots).map(Ok)));
}

/// The results of tasks on two hosts, one of which is killed in the middle of them.
fn kill_in_mid_run(place: &Place, cluster: &Cluster, tasks: u64) -> Vec<Result<u64, TaskError>> {
    const ONE_WORKER: AgentKind = AgentKind { workers: 1, ..MANY_SLOTS };
    let doomed = place.agent("doomed", ONE_WORKER);
    let _other = place.agent("other", ONE_WORKER);
    place.await_hosts(cluster, &["doomed", "other"]);
    warm_up(place, cluster);
    let (file, before) = (place.path("notes"), place.taken("procession-tasks"));
    let submit = |n| cluster.submit(noted(file.clone(), n, 0));
    let futures: Vec<_> = (0..tasks).map(submit).collect();
    eventually("some tasks", || notes(&file).len() > 500);
    doomed.signal(Signal::KILL);
    let results = futures.into_iter().map(Future::result).collect();
    let messages = place.taken("procession-tasks") - before;
    assert!(messages < tasks, "{messages} messages");
    results
}

fn without_retries_what_a_killed_host_had_of_a_bundle_is_lost_and_nothing_else() {
    const TASKS: u64 = 4000;
    let place = Place::new();
    let cluster = place.cluster();
    let results = kill_in_mid_run(&place, &cluster, TASKS);
    assert_lost_once(&place, &cluster, results, MANY_SLOTS.slots);
}

fn with_retries_each_task_of_a_bundle_has_a_further_attempt() {
    const TASKS: u64 = 4000;
    let place = Place::new();
    let cluster = place.builder().attempts(2).build().expect("a cluster");
    let results = kill_in_mid_run(&place, &cluster, TASKS);
    assert_begun_again(&place, &cluster, results, MANY_SLOTS.slots);
}

fn a_server_that_is_killed_in_mid_run_costs_no_task_of_a_bundle_and_doubles_none() {
    const TASKS: u64 = 4000;
    const PATIENT: AgentKind = AgentKind { workers: 1, lease_ms: 20_000, ..MANY_SLOTS };
    let mut place = Place::new();
    let _agents = ["one", "two"].map(|host| place.agent(host, PATIENT));
    let (file, cluster) = (place.path("notes"), place.cluster());
    place.await_hosts(&cluster, &["one", "two"]);
    warm_up(&place, &cluster);
    let submit = |n| cluster.submit(noted(file.clone(), n, 0));
    let futures: Vec<_> = (0..TASKS).map(submit).collect();
    for at in [500, 1500] {
        eventually("some tasks", || notes(&file).len() > at);
        place.restart_server();
    }
    assert!(futures.into_iter().map(Future::result).eq((0..TASKS).map(Ok)));
    assert_eq!(notes(&file), (0..TASKS).collect::<Vec<_>>(), "none lost, none twice");
}

/// Says a line and emits a value; then it fails, crashes, or has a result that is too large for a bundle.
#[procession::task]
fn various(context: &Context, how: u8, n: u64) -> Result<String, String> {
    context.say(format!("line {n}"));
    context.emit(&n).map_err(|error| error.to_string())?;
    match how {
        1 => Err(format!("{n} fails")),
        2 => std::process::abort(),
        3 => Ok("x".repeat(100_000)),
        _ => Ok(n.to_string()),
    }
}

fn what_tasks_of_a_bundle_tell_and_how_they_end_is_their_own() {
    const TASKS: u64 = 600;
    let place = Place::new();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&lines);
    let on_say = move |said: &HostSaid<'_>| {
        heard.lock().expect("lines").push((said.task, said.line.to_owned()));
    };
    let cluster = place.builder().on_say(on_say).build().expect("a cluster");
    let _agent = place.agent("one", MANY_SLOTS);
    place.await_hosts(&cluster, &["one"]);
    eventually("tasks that travel together", || {
        let before = place.taken("procession-tasks");
        let futures: Vec<_> = (0..TASKS).map(|n| cluster.submit(various(0, n))).collect();
        futures.into_iter().for_each(|future| drop(future.result().expect("a result")));
        place.taken("procession-tasks") - before < TASKS
    });
    lines.lock().expect("lines").clear();
    let how = |n: u64| if n % 100 < 97 { 0 } else { (n % 100 - 96) as u8 };
    let submit =
        |n| cluster.submit_with(TaskOptions::new().retries(Retries::none()), various(how(n), n));
    let futures: Vec<_> = (0..TASKS).map(submit).collect();
    let ids: Vec<_> = futures.iter().map(Future::id).collect();
    for (n, future) in (0..).zip(futures) {
        let values = future.partials::<u64>().map(|value| value.expect("a value").value);
        let values: Vec<_> = values.collect();
        let result = future.result();
        match how(n) {
            1 => assert_eq!(result.expect_err("an error").to_string(), format!("{n} fails")),
            2 => assert!(matches!(result, Err(TaskError::WorkerDied(_))), "{result:?}"),
            3 => assert_eq!(result.expect("a text").len(), 100_000),
            _ => assert_eq!(result, Ok(n.to_string())),
        }
        assert!(how(n) == 2 || values == [n], "{values:?}");
    }
    let told = lines.lock().expect("lines");
    for (n, id) in (0..).zip(ids).filter(|(n, _)| how(*n) != 2) {
        assert!(told.contains(&(id, format!("line {n}"))), "task {n}");
    }
}
