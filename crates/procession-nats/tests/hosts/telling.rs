//! What tasks tell before their results: lines, and values.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use procession::Executor;
use procession_nats::{Cluster, ClusterEvent};

use crate::place::{AgentKind, Place};
use crate::tasks::{says, tells};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        lines_and_values_arrive_in_their_order_before_the_result,
        lines_of_tasks_in_chunks_have_the_ids_of_their_tasks,
        a_line_that_cannot_be_sent_is_told_as_lost,
    ]
}

/// A task, a host, a line.
type Lines = Arc<Mutex<Vec<(u64, String, String)>>>;

/// A cluster that keeps all lines.
fn listening(place: &Place, chunks: usize) -> (Cluster, Lines) {
    let lines = Lines::default();
    let kept = Arc::clone(&lines);
    // In a job that has a name all chunks have this size.
    let builder = place.builder().job("listening").map_chunks(chunks).on_say(move |said| {
        let line = (said.task.number(), said.host.to_owned(), said.line.to_owned());
        kept.lock().expect("lines").push(line);
    });
    (builder.build().expect("a cluster"), lines)
}

fn lines_and_values_arrive_in_their_order_before_the_result() {
    // As many values as are kept for a reader that is late.
    const TOLD: u64 = 1000;
    let place = Place::new();
    let _agent = place.agent("one", AgentKind::default());
    let (cluster, lines) = listening(&place, 1);
    for _ in 0..3 {
        lines.lock().expect("lines").clear();
        let future = cluster.submit(tells(TOLD));
        let id = future.id().number();
        let values = future.partials::<u64>();
        let reader = std::thread::spawn(move || {
            values.map(|partial| partial.expect("a value").value).collect::<Vec<u64>>()
        });
        assert_eq!(future.result(), Ok(TOLD));
        let expected: Vec<_> =
            (0..TOLD).map(|n| (id, "one".to_owned(), format!("line {n}"))).collect();
        assert!(*lines.lock().expect("lines") == expected, "all lines, in their order");
        assert_eq!(reader.join().expect("a reader"), (0..TOLD).collect::<Vec<_>>());
    }
}

fn lines_of_tasks_in_chunks_have_the_ids_of_their_tasks() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind::default());
    let (cluster, lines) = listening(&place, 5);
    assert!(cluster.map((0..10).map(|_| says(3))).all(|result| result == Ok(3)));
    let mut ids: Vec<_> = lines.lock().expect("lines").iter().map(|(id, ..)| *id).collect();
    assert_eq!(ids.len(), 10);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 10, "each task has said one line");
}

fn a_line_that_cannot_be_sent_is_told_as_lost() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind::default());
    let (told, tells) = std::sync::mpsc::channel();
    let told = Mutex::new(told);
    let on_event =
        move |event: &ClusterEvent| drop(told.lock().expect("a sender").send(event.clone()));
    let cluster = place.builder().on_event(on_event).on_say(|_| ()).build().expect("a cluster");
    let future = cluster.submit(says(1 << 20));
    let id = future.id();
    assert_eq!(future.result(), Ok(1 << 20));
    let event = tells.recv_timeout(Duration::from_secs(30)).expect("an event");
    assert_eq!(event, ClusterEvent::Missed { task: id, number: 1 });
}
