//! Large tasks and results.

use libtest_mimic::Trial;
use procession::{Blob, Executor, Shutdown};

use crate::harness::eventually;
use crate::place::{AgentKind, Place};
use crate::tasks::reverse;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        blobs_of_any_size_arrive_equal_and_nothing_is_left_of_them,
        a_shutdown_that_waits_waits_for_large_results_too,
        large_tasks_and_results_arrive_although_the_server_is_killed_meanwhile,
    ]
}

fn blobs_of_any_size_arrive_equal_and_nothing_is_left_of_them() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind::default());
    let cluster = place.cluster();
    for len in [0, 1000, 300_000, (1 << 20) + 1, 64 << 20] {
        let bytes: Vec<u8> =
            (0..len).map(|n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let reversed = cluster.submit(reverse(Blob::from(bytes.clone()))).result();
        let back: Vec<u8> = reversed.expect("a blob").iter().rev().copied().collect();
        assert!(back == bytes, "{len} bytes");
    }
    eventually("an empty bucket", || place.chunks("procession-bodies") == 0);
}

fn a_shutdown_that_waits_waits_for_large_results_too() {
    let place = Place::new();
    let _agent = place.agent("one", AgentKind::default());
    let cluster = place.cluster();
    let len = 16 << 20;
    let futures: Vec<_> =
        (0..4).map(|_| cluster.submit(reverse(Blob::from(vec![7; len])))).collect();
    cluster.shutdown(Shutdown::Wait);
    drop(cluster);
    for future in futures {
        assert!(future.is_done());
        assert_eq!(future.result().expect("a blob").len(), len);
    }
}

fn large_tasks_and_results_arrive_although_the_server_is_killed_meanwhile() {
    let mut place = Place::new();
    let _agent = place.agent("one", AgentKind { lease_ms: 20_000, ..AgentKind::default() });
    let cluster = place.cluster();
    let len = 4 << 20;
    let futures: Vec<_> =
        (0..16_u8).map(|n| cluster.submit(reverse(Blob::from(vec![n; len])))).collect();
    for at in [1, 6] {
        eventually("some results", || {
            futures.iter().filter(|future| future.is_done()).count() > at
        });
        place.restart_server();
    }
    for (n, future) in (0..16_u8).zip(futures) {
        let result = future.result();
        assert!(result.as_ref().is_ok_and(|blob| **blob == vec![n; len]), "{n}: {result:?}");
    }
}
