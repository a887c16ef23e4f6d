//! Jobs that have a name: a coordinator that was killed is followed by one that attaches.

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::Trial;
use procession::{Blob, Executor, Future, PoolError, Shutdown, TaskError};
use procession_nats::{Cluster, ClusterEvent, ConnectSettings, forget};
use rustix::process::Signal;

use crate::harness::{self, Gate, eventually, stop};
use crate::place::{self, AgentKind, Place};
use crate::tasks::{gated, noted, notes, reverse, says, square};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_coordinator_that_attaches_to_the_job_of_a_killed_one_begins_no_task_twice,
        past_the_window_of_duplicates_a_coordinator_that_attaches_begins_no_task_twice,
        of_two_coordinators_on_one_job_the_second_is_refused_and_one_that_is_left_is_taken,
        another_task_in_the_place_of_one_is_an_error_and_the_first_one_goes_on,
        a_coordinator_that_was_stopped_for_long_has_lost_its_job,
        a_job_that_is_forgotten_begins_anew,
    ]
}

const JOB: &str = "nightly";
const TASKS: u64 = 500;

fn attach(url: &str) -> Result<Cluster, PoolError> {
    Cluster::builder(ConnectSettings::new(url)).job(JOB).build()
}

fn submit(cluster: &Cluster, file: &str) -> Vec<Future<u64>> {
    (0..TASKS).map(|n| cluster.submit(noted(file.into(), n, 5))).collect()
}

pub(crate) fn play_if_asked() {
    let Some(arguments) = place::asked() else { return };
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    if let ["attached", url, file] = arguments[..] {
        place::end_with_input();
        let cluster = attach(url).expect("a job");
        let futures = submit(&cluster, file);
        let last = futures.into_iter().map(Future::result).fold(None, |_, result| result.err());
        println!("{last:?}");
        std::process::exit(0);
    }
}

fn kill_and_attach(place: &Place) {
    let _agents = ["one", "two"].map(|host| place.agent(host, AgentKind::default()));
    let file = place.path("notes");
    let text = file.to_str().expect("a path");
    let mut coordinator = place::role(&format!("attached {} {text}", place.url()));
    eventually("some tasks", || notes(&file).len() > 50);
    coordinator.kill().expect("a coordinator");
    coordinator.wait().expect("its end");
    let cluster = attach(&place.url()).expect("the job");
    for (n, future) in (0..).zip(submit(&cluster, text)) {
        assert_eq!(future.result(), Ok(n));
    }
    assert_eq!(notes(&file), (0..TASKS).collect::<Vec<_>>(), "each began once");
    cluster.shutdown(Shutdown::Wait);
    drop(cluster);
    eventually("an empty queue", || place.messages("procession-tasks") == 0);
    assert_eq!(place.messages("procession-records"), 0, "the job has ended");
}

fn a_coordinator_that_attaches_to_the_job_of_a_killed_one_begins_no_task_twice() {
    kill_and_attach(&Place::new());
}

fn past_the_window_of_duplicates_a_coordinator_that_attaches_begins_no_task_twice() {
    let place = Place::new();
    drop(place.cluster()); // makes the streams
    let info = place.api("STREAM.INFO.procession-tasks", "");
    let mut config = info["config"].clone();
    config["duplicate_window"] = 100_000_000.into(); // 100 ms
    let answer = place.api("STREAM.UPDATE.procession-tasks", &config.to_string());
    assert!(answer["error"].is_null(), "{answer}");
    kill_and_attach(&place);
}

fn of_two_coordinators_on_one_job_the_second_is_refused_and_one_that_is_left_is_taken() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind::default());
    let (gate, file) = (Gate::new(), place.path("notes"));
    let first = attach(&place.url()).expect("a job");
    let bytes = Blob::from(vec![7; 1 << 20]);
    let reversed = first.submit(reverse(bytes.clone())).result().expect("a blob");
    assert_eq!(first.submit(says(3)).result(), Ok(3));
    let running = first.submit(gated(file.clone(), gate.path(), 4));
    gate.await_arrivals(1);
    let error = attach(&place.url()).expect_err("the job is held");
    let PoolError::JobHeld { job, by } = error else { panic!("{error}") };
    assert_eq!(job, JOB);
    assert!(by.contains(&std::process::id().to_string()), "{by}");
    assert!(matches!(
        forget(&ConnectSettings::new(place.url()), JOB),
        Err(PoolError::JobHeld { .. })
    ));
    first.leave();
    assert_eq!(running.result(), Err(TaskError::PoolBroken(PoolError::ShutDown)));
    let missed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&missed);
    let count = move |event: &ClusterEvent| {
        let is_missed = matches!(event, ClusterEvent::Missed { .. });
        counted.fetch_add(usize::from(is_missed), Ordering::SeqCst);
    };
    let second = place.builder().job(JOB).on_event(count).build().expect("the job");
    let begun = second.stats();
    let again = second.submit(reverse(bytes)).result().expect("a blob that is kept");
    assert!(again == reversed);
    assert_eq!(second.submit(says(3)).result(), Ok(3));
    let running = second.submit(gated(file.clone(), gate.path(), 4));
    gate.open();
    assert_eq!(running.result(), Ok(4));
    assert_eq!(notes(&file), [4], "it was not begun again");
    assert_eq!((begun.finished, missed.load(Ordering::SeqCst)), (0, 0));
    second.shutdown(Shutdown::Wait);
    drop(second);
    assert_eq!(place.messages("procession-records"), 0);
    assert_eq!(place.chunks("procession-bodies"), 0);
}

fn another_task_in_the_place_of_one_is_an_error_and_the_first_one_goes_on() {
    let place = Place::new();
    let first = attach(&place.url()).expect("a job");
    for n in [1, 2] {
        drop(first.submit(square(n)));
    }
    eventually("messages in the queue", || place.messages("procession-tasks") == 2);
    first.leave();
    let second = attach(&place.url()).expect("the job");
    let other = second.submit(square(7)).result().expect_err("another task");
    let TaskError::OtherTask { task, job, index } = other else { panic!("{other}") };
    assert!(task.ends_with("square"), "{task}");
    assert_eq!((job.as_str(), index), (JOB, 0));
    let same = second.submit(square(2));
    let _agent = place.agent("one", AgentKind::default());
    assert_eq!(same.result(), Ok(4));
    let other = Cluster::builder(ConnectSettings::new(place.url())).job("a job").build();
    assert!(matches!(other, Err(PoolError::Setting(_))));
    second.leave();
    let build = Cluster::builder(ConnectSettings::new(place.url())).job(JOB).build_id("another");
    assert!(matches!(build.build(), Err(PoolError::Setting(_))));
    let third = attach(&place.url()).expect("the job");
    assert_eq!(third.submit(square(1)).result(), Ok(1));
}

fn a_coordinator_that_was_stopped_for_long_has_lost_its_job() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind::default());
    let file = place.path("notes");
    let text = file.to_str().expect("a path");
    let mut stopped = place::role(&format!("attached {} {text}", place.url()));
    eventually("some tasks", || notes(&file).len() > 10);
    stop(stopped.id());
    let cluster = attach(&place.url()).expect("the job");
    let futures = submit(&cluster, text);
    harness::signal(stopped.id(), Signal::CONT);
    let (mut said, output) = (String::new(), stopped.stdout.as_mut().expect("an output"));
    BufReader::new(output).read_line(&mut said).expect("a line");
    stopped.wait().expect("its end");
    assert!(said.contains("JobHeld"), "{said}");
    for (n, future) in (0..).zip(futures) {
        assert_eq!(future.result(), Ok(n));
    }
    assert_eq!(notes(&file), (0..TASKS).collect::<Vec<_>>(), "each began once");
}

fn a_job_that_is_forgotten_begins_anew() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind::default());
    let (settings, file) = (ConnectSettings::new(place.url()), place.path("notes"));
    for _ in 0..2 {
        let cluster = attach(&place.url()).expect("the job");
        assert_eq!(cluster.submit(noted(file.clone(), 1, 1)).result(), Ok(1));
        cluster.leave();
    }
    assert_eq!(notes(&file), [1]);
    forget(&settings, JOB).expect("a job that nobody has");
    let cluster = attach(&place.url()).expect("a new job");
    assert_eq!(cluster.submit(noted(file.clone(), 1, 1)).result(), Ok(1));
    assert_eq!(notes(&file), [1, 1]);
}
