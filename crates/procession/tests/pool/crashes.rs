//! Tasks that end their worker: only these tasks have no output.

use std::error::Error;
use std::sync::{Arc, mpsc};
use std::thread;

use libtest_mimic::Trial;
use procession::{Death, Executor, Exit, Future, FutureState, ProcessPool, TaskError};
use rustix::process::Signal;

use crate::harness::{self, Gate, eventually, is_alive};
use crate::tasks::{
    Bad, Children, DieSoon, Echo, Ending, KillAnother, Pass, Pid, await_workers, pool, quiet,
    succeeds_with,
};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_task_that_fails_costs_itself,
        a_task_that_panics_costs_itself,
        a_task_that_aborts_costs_its_worker,
        a_task_that_segfaults_costs_its_worker,
        a_task_that_is_killed_costs_its_worker,
        a_task_that_exits_with_0_costs_its_worker,
        a_task_that_exits_with_42_costs_its_worker,
        a_task_that_overflows_its_stack_costs_its_worker,
        the_report_of_a_death_has_the_last_words,
        an_idle_worker_that_is_killed_is_replaced,
        the_output_of_a_worker_that_dies_after_its_reply_is_kept,
        a_reply_that_lies_unread_when_its_worker_dies_is_kept,
        a_hundred_bad_tasks_then_a_hundred_good_ones,
        bad_and_good_tasks_mixed_each_get_their_own,
        tasks_that_wait_behind_a_bad_one_in_its_worker_run_elsewhere,
        a_task_submitted_when_another_crashed_succeeds,
        a_task_that_kills_every_worker_it_meets_fails_each_time,
        workers_that_kill_each_other_lose_no_task,
        a_death_is_noticed_though_what_the_task_started_lives_and_prints,
        what_a_task_started_dies_with_its_worker,
    ]
}

/// Runs a bad task while another task runs in the other worker, sees to it that nothing but the
/// bad task is harmed, and gives its error with the process that ran it, as far as that is known.
#[track_caller]
fn only_costs_itself(ending: Ending, costs_its_worker: bool) -> TaskError {
    let pool = pool(2);
    let before = pool.pids();
    let gate = Gate::new();
    let bystander = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);

    let error = pool.submit(Bad(ending)).result().expect_err("an error");
    assert_eq!(bystander.state(), FutureState::Running);
    succeeds_with(&pool, 100);
    gate.open();
    let unharmed = bystander.result().expect("an output");

    eventually("a full number of workers", || {
        let after = pool.pids();
        let kept = after.iter().filter(|pid| before.contains(pid)).count();
        after.len() == 2 && kept == if costs_its_worker { 1 } else { 2 }
    });
    assert!(pool.pids().contains(&unharmed), "the other worker lives on");
    if let TaskError::WorkerDied(death) = &error {
        assert!(before.contains(&death.pid) && death.pid != unharmed);
        assert_eq!(death.attempts, 1);
    }
    succeeds_with(&pool, 100);
    error
}

#[track_caller]
fn dies(ending: Ending, exit: Exit) -> Death {
    match only_costs_itself(ending, true) {
        TaskError::WorkerDied(death) => {
            assert_eq!(death.exit, exit);
            *death
        }
        other => panic!("{other:?}"),
    }
}

fn by(signal: Signal) -> Exit {
    Exit::Signal(signal.as_raw())
}

fn a_task_that_fails_costs_itself() {
    let error = only_costs_itself(Ending::Fail, false);
    assert!(matches!(error, TaskError::Failed(_)));
    assert_eq!(error.to_string(), "the outer error");
    assert_eq!(error.source().expect("a cause").to_string(), "the inner error");
}

fn a_task_that_panics_costs_itself() {
    let error = only_costs_itself(Ending::Panic, false);
    let TaskError::Panicked { message, location, .. } = error else { panic!("{error:?}") };
    assert_eq!(message, "on purpose");
    assert!(location.expect("a location").contains("tasks.rs:"));
}

fn a_task_that_aborts_costs_its_worker() {
    let death = dies(Ending::Abort, by(Signal::ABORT));
    let pid = death.pid;
    let text = format!("(pid {pid}) died of signal 6 (SIGABRT)");
    assert!(death.to_string().contains(&text), "{death}");
}

fn a_task_that_segfaults_costs_its_worker() {
    dies(Ending::Segfault, by(Signal::SEGV));
}

fn a_task_that_is_killed_costs_its_worker() {
    dies(Ending::Kill, by(Signal::KILL));
}

fn a_task_that_exits_with_0_costs_its_worker() {
    dies(Ending::Exit(0), Exit::Code(0));
}

fn a_task_that_exits_with_42_costs_its_worker() {
    let death = dies(Ending::Exit(42), Exit::Code(42));
    assert!(death.to_string().contains("died of exit code 42"), "{death}");
}

fn a_task_that_overflows_its_stack_costs_its_worker() {
    let death = dies(Ending::StackOverflow, by(Signal::ABORT));
    let said = death.last_output.join("\n");
    assert!(said.contains("has overflowed its stack"), "{said}");
}

fn the_report_of_a_death_has_the_last_words() {
    let pool = pool(1);
    pool.submit(crate::tasks::Say("early".to_owned(), "late".to_owned())).result().expect("said");
    let error = pool.submit(Bad(Ending::Abort)).result().expect_err("an error");
    let TaskError::WorkerDied(death) = error else { panic!("{error:?}") };
    let mut said = death.last_output;
    said.sort();
    assert_eq!(said, ["early", "late"]);
}

fn an_idle_worker_that_is_killed_is_replaced() {
    let pool = pool(2);
    for _ in 0..5 {
        let victim = pool.pids()[0];
        harness::signal(victim, Signal::KILL);
        eventually("a replacement", || {
            let pids = pool.pids();
            pids.len() == 2 && !pids.contains(&victim)
        });
        succeeds_with(&pool, 10);
    }
}

fn the_output_of_a_worker_that_dies_after_its_reply_is_kept() {
    let pool = pool(1);
    let gate = Gate::new();
    gate.open();
    let pid = pool.submit(DieSoon(gate.path())).result().expect("an output");
    eventually("the worker's death", || !is_alive(pid));
    await_workers(&pool);
    succeeds_with(&pool, 10);
}

fn a_reply_that_lies_unread_when_its_worker_dies_is_kept() {
    let pool = quiet().workers(1).concurrency(2).build().expect("a pool");
    await_workers(&pool);
    let pid = pool.pids()[0];
    let (first, second) = (Gate::new(), Gate::new());
    let dies_soon = pool.submit(DieSoon(second.path()));
    let keeps_us_busy = pool.submit(Pass(first.path()));
    let opens = second.path();
    keeps_us_busy.on_done(move |_| {
        // No reply is read as long as this goes on.
        std::fs::write(opens.join("open"), "").expect("an opened gate");
        eventually("the worker's death", || !is_alive(pid));
    });
    first.await_arrivals(1);
    second.await_arrivals(1);
    first.open();
    assert_eq!(dies_soon.result(), Ok(pid));
    assert_eq!(keeps_us_busy.result(), Ok(pid));
    eventually("a replacement", || !pool.pids().contains(&pid));
    succeeds_with(&pool, 10);
}

const FATAL: [Ending; 5] =
    [Ending::Abort, Ending::Segfault, Ending::Kill, Ending::Exit(0), Ending::Exit(42)];

fn a_hundred_bad_tasks_then_a_hundred_good_ones() {
    let pool = pool(2);
    let bad: Vec<_> =
        FATAL.iter().cycle().take(100).map(|ending| pool.submit(Bad(ending.clone()))).collect();
    let good: Vec<_> = (0..100).map(|n| pool.submit(Echo(n.to_string()))).collect();
    for future in bad {
        assert!(matches!(future.result(), Err(TaskError::WorkerDied(_))));
    }
    for (n, future) in good.into_iter().enumerate() {
        assert_eq!(future.result(), Ok(n.to_string()));
    }
    await_workers(&pool);
}

fn bad_and_good_tasks_mixed_each_get_their_own() {
    let pool = pool(2);
    // So that the pool knows the tasks for short, and sends them ahead.
    succeeds_with(&pool, 200);
    enum Owed {
        Bad(Future<()>),
        Good(Future<String>, String),
    }
    let submit = |n: usize| match n % 10 {
        7 => Owed::Bad(pool.submit(Bad(FATAL[n / 10 % FATAL.len()].clone()))),
        _ => Owed::Good(pool.submit(Echo(n.to_string())), n.to_string()),
    };
    for owed in (0..300).map(submit).collect::<Vec<_>>() {
        match owed {
            Owed::Bad(future) => assert!(matches!(future.result(), Err(TaskError::WorkerDied(_)))),
            Owed::Good(future, text) => assert_eq!(future.result(), Ok(text)),
        }
    }
    await_workers(&pool);
}

fn tasks_that_wait_behind_a_bad_one_in_its_worker_run_elsewhere() {
    let pool = pool(1);
    succeeds_with(&pool, 200);
    let bad = pool.submit(Bad(Ending::Segfault));
    let behind: Vec<_> = (0..50).map(|_| pool.submit(Pid())).collect();
    let Err(TaskError::WorkerDied(death)) = bad.result() else { panic!("a bad task that is good") };
    for future in behind {
        assert_ne!(future.result().expect("an output"), death.pid);
    }
}

fn a_task_submitted_when_another_crashed_succeeds() {
    let pool = Arc::new(pool(2));
    for ending in FATAL {
        let (sender, next) = mpsc::channel();
        let again = Arc::clone(&pool);
        pool.submit(Bad(ending)).on_done(move |result| {
            assert!(result.is_err());
            sender.send(again.submit(Echo("next".to_owned()))).expect("a receiver");
        });
        let next = next.recv().expect("a future");
        assert_eq!(next.result(), Ok("next".to_owned()));
    }
}

fn a_task_that_kills_every_worker_it_meets_fails_each_time() {
    let pool = pool(2);
    let mut pids = Vec::new();
    for _ in 0..30 {
        match pool.submit(Bad(Ending::Segfault)).result() {
            Err(TaskError::WorkerDied(death)) => {
                assert_eq!(death.attempts, 1, "a task is not begun twice unless that is asked for");
                assert!(!pids.contains(&death.pid), "each in a worker of its own");
                pids.push(death.pid);
            }
            other => panic!("{other:?}"),
        }
    }
    succeeds_with(&pool, 100);
}

fn workers_that_kill_each_other_lose_no_task() {
    for workers in [1, 2, 5, 13] {
        let pool = pool(workers);
        enum Owed {
            Echo(Future<String>, String),
            Kill(Future<()>),
        }
        let mut dice = fastrand::Rng::with_seed(workers as u64);
        let submit = |n: usize| {
            let pids = pool.pids();
            match dice.choice(pids) {
                Some(victim) if n.is_multiple_of(4) => Owed::Kill(pool.submit(KillAnother(victim))),
                _ => Owed::Echo(pool.submit(Echo(n.to_string())), n.to_string()),
            }
        };
        for owed in (0..200).map(submit).collect::<Vec<_>>() {
            let died = match owed {
                Owed::Echo(future, text) => future.result().map(|echo| assert_eq!(echo, text)),
                Owed::Kill(future) => future.result(),
            };
            assert!(matches!(died, Ok(()) | Err(TaskError::WorkerDied(_))), "{died:?}");
        }
        // The last victims may still be about to die, with what they are sent.
        eventually("peace", || pool.map((0..100).map(|_| Pid())).all(|pid| pid.is_ok()));
        await_workers(&pool);
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn told_pid(gate: &Gate) -> u32 {
    let told = gate.path().join("told");
    eventually("the process id of what the task started", || told.exists());
    std::fs::read_to_string(told).expect("a told process id").parse().expect("a process id")
}

fn a_death_is_noticed_though_what_the_task_started_lives_and_prints() {
    let pool = pool(1);
    // In a process group, or a session, of its own: it is beyond the pool's reach.
    for program in [&["yes"][..], &["setsid", "yes"], &["setsid", "sleep", "600"]] {
        let gate = Gate::new();
        let told = gate.path().join("told");
        let bad = pool.submit(Children(words(program), told, Some(Ending::Abort)));
        let died = matches!(bad.result(), Err(TaskError::WorkerDied(_)));
        if program[0] == "setsid" {
            harness::signal(told_pid(&gate), Signal::KILL);
        }
        assert!(died, "{program:?}");
        succeeds_with(&pool, 10);
    }
}

fn what_a_task_started_dies_with_its_worker() {
    let sleep = words(&["sleep", "600"]);
    let dead_pool: ProcessPool = pool(2);
    let (crash, kill) = (Gate::new(), Gate::new());
    let told = crash.path().join("told");
    let bad = dead_pool.submit(Children(sleep.clone(), told, Some(Ending::Abort)));
    let endless = dead_pool.submit(Children(sleep, kill.path().join("told"), None));
    let (crashed, killed) = (told_pid(&crash), told_pid(&kill));
    assert!(bad.result().is_err());
    eventually("the end of what the crashed task started", || !is_alive(crashed));
    assert!(is_alive(killed));
    thread::spawn(move || drop(dead_pool));
    assert_eq!(endless.result(), Err(TaskError::Cancelled));
    eventually("the end of what the killed task started", || !is_alive(killed));
}
