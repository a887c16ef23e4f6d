//! What can be sent to a worker and back.

use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use procession::{Executor, TaskError};
use rustix::process::Signal;
use serde_json::json;

use crate::harness;
use crate::tasks::{
    Bad, Echo, Ending, Length, Mute, MuteOutput, Repeat, Seat, Unreadable, UnreadableOutput, Value,
    pool, succeeds_with,
};

pub(crate) fn trials() -> Vec<Trial> {
    let heavy = trials![two_hundred_and_fifty_six_megabytes_go_both_ways];
    let trials = trials![
        texts_of_all_sizes_arrive_and_come_back,
        calls_behind_many_that_were_cancelled_find_room,
        ten_megabytes_go_both_ways_many_times,
        a_megabyte_with_each_of_many_tasks_at_once,
        unicode_survives,
        the_largest_numbers_survive,
        nested_values_survive,
        values_nested_too_deeply_are_refused_with_an_error,
        a_number_that_json_cannot_hold_is_an_error,
        a_task_that_cannot_be_encoded_is_an_error,
        a_task_that_cannot_be_decoded_is_an_error,
        an_output_that_cannot_be_encoded_is_an_error,
        an_output_that_cannot_be_decoded_is_an_error,
        a_worker_that_dies_of_a_large_task_takes_only_that_along,
        a_worker_may_die_in_the_midst_of_a_hundred_megabytes,
    ];
    heavy.into_iter().map(|trial| trial.with_ignored_flag(true)).chain(trials).collect()
}

fn texts_of_all_sizes_arrive_and_come_back() {
    let pool = pool(2);
    for size in [0, 1, 65_535, 65_536, 65_537, 212_448, 10_000_000] {
        let text = "x".repeat(size);
        assert_eq!(pool.submit(Length(text.clone())).result(), Ok(size), "there");
        let back = pool.submit(Repeat("x".to_owned(), size)).result();
        assert_eq!(back.map(|text| text.len()), Ok(size), "back");
        assert!(pool.submit(Echo(text.clone())).result() == Ok(text), "there and back: {size}");
    }
    // The quotes and the envelope are also part of what is sent.
    for size in 65_450..65_540 {
        assert_eq!(pool.submit(Echo("x".repeat(size))).result().map(|t| t.len()), Ok(size));
    }
}

fn ten_megabytes_go_both_ways_many_times() {
    let pool = pool(2);
    let text = "y".repeat(10_000_000);
    let echoes = pool.map((0..3).map(|_| Echo(text.clone())));
    assert!(echoes.into_iter().all(|echo| echo.as_ref() == Ok(&text)));
}

fn two_hundred_and_fifty_six_megabytes_go_both_ways() {
    let text = "z".repeat(256 << 20);
    assert!(pool(1).submit(Echo(text.clone())).result() == Ok(text));
}

fn a_megabyte_with_each_of_many_tasks_at_once() {
    let pool = pool(2);
    let futures: Vec<_> = (0..30).map(|_| pool.submit(Length("x".repeat(1 << 20)))).collect();
    assert!(futures.into_iter().all(|future| future.result() == Ok(1 << 20)));
}

fn unicode_survives() {
    let text = "ünï 🇧🇷 \u{0}\u{1}\u{7f}\u{fffd}\u{10ffff} \\ \" \r\n \u{2028} e\u{301}".to_owned();
    let pool = pool(1);
    assert_eq!(pool.submit(Echo(text.clone())).result(), Ok(text.clone()));
    let long = text.repeat(10_000);
    assert!(pool.submit(Echo(long.clone())).result() == Ok(long), "in shared memory");
}

fn the_largest_numbers_survive() {
    let numbers = json!([u64::MAX, i64::MIN, f64::MAX, f64::MIN_POSITIVE, 0.1, -0.0]);
    assert_eq!(pool(1).submit(Value(numbers.clone())).result(), Ok(numbers));
}

fn nested(depth: usize) -> serde_json::Value {
    (0..depth).fold(json!({"end": null}), |inner, _| json!([inner]))
}

fn nested_values_survive() {
    assert_eq!(pool(1).submit(Value(nested(100))).result(), Ok(nested(100)));
}

fn values_nested_too_deeply_are_refused_with_an_error() {
    let pool = pool(1);
    let refused = pool.submit(Value(nested(1000))).result();
    assert!(matches!(refused, Err(TaskError::Unencodable { .. })), "{refused:?}");
    assert_eq!(pool.submit(Value(nested(126))).result(), Ok(nested(126)), "as deep as may be");
    let refused = pool.submit(Value(nested(127))).result();
    assert!(matches!(refused, Err(TaskError::Unencodable { .. })), "{refused:?}");
    succeeds_with(&pool, 10);
}

fn a_number_that_json_cannot_hold_is_an_error() {
    let pool = pool(1);
    let refused = pool.submit(crate::tasks::Float(f64::NAN)).result();
    let Err(TaskError::Unencodable { what, task, field, reason }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!([what, task, field], ["task", "Float", ""]);
    assert!(reason.contains("NaN"), "{reason}");
    assert_eq!(pool.submit(crate::tasks::Float(0.5)).result(), Ok(0.5));
}

fn a_task_that_cannot_be_encoded_is_an_error() {
    let pool = pool(2);
    let refused = pool.submit(Mute(crate::tasks::Refuses)).result();
    assert_eq!(refused, Err(refusal("task", "Mute")));
    succeeds_with(&pool, 100);
}

/// What comes of a type that refuses to be encoded.
fn refusal(what: &str, task: &str) -> TaskError {
    let [what, task, reason] = [what, task, "it will not"].map(str::to_owned);
    TaskError::Unencodable { what, task, field: String::new(), reason }
}

fn a_task_that_cannot_be_decoded_is_an_error() {
    let pool = pool(2);
    let refused = pool.submit(Unreadable(crate::tasks::RefusesToBeRead)).result();
    let Err(TaskError::Undecodable { what, reason, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(what, "task");
    assert!(reason.contains("it will not"), "{reason}");
    succeeds_with(&pool, 100);
}

fn an_output_that_cannot_be_encoded_is_an_error() {
    let pool = pool(2);
    let refused = pool.submit(MuteOutput()).result().expect_err("refused");
    assert_eq!(refused, refusal("output", "MuteOutput"));
    succeeds_with(&pool, 100);
}

fn an_output_that_cannot_be_decoded_is_an_error() {
    let pool = pool(2);
    let refused = pool.submit(UnreadableOutput()).result().expect_err("refused");
    let TaskError::Undecodable { what, reason, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(what, "output");
    assert!(reason.contains("it will not"), "{reason}");
    succeeds_with(&pool, 100);
}

fn a_worker_may_die_in_the_midst_of_a_hundred_megabytes() {
    const LARGE: usize = 100 << 20;
    let pool = pool(1);
    let dies_after = |milliseconds| {
        thread::sleep(Duration::from_millis(milliseconds));
        harness::signal(pool.pids()[0], Signal::KILL);
    };
    let argument = pool.submit(Length("x".repeat(LARGE)));
    dies_after(30);
    assert!(matches!(argument.result(), Ok(LARGE) | Err(TaskError::WorkerDied(_))));
    succeeds_with(&pool, 3);

    let output = pool.submit(Repeat("x".to_owned(), LARGE));
    dies_after(100);
    match output.result() {
        Ok(output) => assert_eq!(output.len(), LARGE),
        Err(error) => assert!(matches!(error, TaskError::WorkerDied(_)), "{error:?}"),
    }
    succeeds_with(&pool, 3);
}

fn a_worker_that_dies_of_a_large_task_takes_only_that_along() {
    let pool = pool(2);
    let large = "x".repeat(2_000_000);
    for _ in 0..3 {
        let echoes: Vec<_> = (0..4).map(|_| pool.submit(Echo(large.clone()))).collect();
        let bad = pool.submit(Bad(Ending::Kill));
        assert!(echoes.into_iter().all(|echo| echo.result().as_ref() == Ok(&large)));
        assert!(matches!(bad.result(), Err(TaskError::WorkerDied(_))));
    }
}

fn calls_behind_many_that_were_cancelled_find_room() {
    let pool = pool(1);
    let text = || "x".repeat(50_000);
    let (began, mut rounds) = (Instant::now(), 0);
    // What went wrong here once did so in one round of some ten.
    while rounds < 20 || (rounds < 500 && began.elapsed() < Duration::from_secs(1)) {
        rounds += 1;
        // Until calls are sent ahead.
        succeeds_with(&pool, 60);
        let running = pool.submit(Seat());
        // What was cancelled lies in the memory until the worker has come upon it, and fills it.
        for _ in 0..8 {
            pool.submit(Length(text())).cancel();
        }
        let last = pool.submit(Length(text()));
        assert!(last.wait_timeout(Duration::from_secs(20)), "the last one was never sent");
        assert_eq!((last.result(), running.is_done()), (Ok(50_000), true));
    }
}
