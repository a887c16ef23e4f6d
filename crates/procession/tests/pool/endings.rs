//! Workers end when the pool orders it and when the program ends, even if a task or the program has changed
//! their signals, process groups or descriptors.

use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use libtest_mimic::Trial;
use procession::{Executor, ProcessPool, Shutdown, TaskError};
use rustix::process::Signal;

use crate::harness::{self, Gate, eventually, is_alive};
use crate::plays::{CloseAll, Fork, Join, Keep, command};
use crate::program::{assert_works, start_and_hear_workers};
use crate::tasks::{Echo, Pass, Pid, pool, quiet, succeeds_with};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_worker_that_left_its_group_is_ended_at_a_deadline,
        a_worker_that_left_its_group_is_ended_by_a_cancel,
        a_worker_that_left_its_group_is_ended_with_the_pool,
        a_pool_ends_after_its_program_gave_up_its_rights,
        a_worker_that_cannot_be_ended_is_written_off,
        a_pool_with_a_template_ends_after_its_program_gave_up_its_rights,
        a_process_that_a_task_replaced_ends_with_the_program,
        a_process_that_one_of_several_tasks_replaced_ends_with_the_program,
        workers_that_have_not_reported_end_with_the_program,
        what_a_killed_program_left_of_its_starting_workers_is_removed_by_the_next_one,
        workers_end_with_the_program_though_a_copy_of_it_lives,
        a_forked_copy_of_the_program_has_no_pool,
        a_forked_copy_of_a_worker_answers_nothing,
        it_works_where_ended_children_are_discarded,
        it_works_where_another_part_of_the_program_reaps,
        it_works_with_a_timer_that_interrupts_all_the_time,
        it_works_with_all_signals_blocked,
        it_works_with_all_signals_ignored,
        it_works_with_the_default_for_broken_pipes,
        it_works_with_standard_streams_that_were_closed_meanwhile,
        a_task_survives_what_asks_a_whole_session_to_end,
        a_task_that_closes_all_descriptors_is_finished,
        a_task_that_reads_the_terminal_gets_an_error,
        a_shortage_of_descriptors_costs_no_worker_at_work,
        a_limit_of_file_sizes_is_told_and_ends_no_program,
        what_tasks_kept_is_dropped_at_an_orderly_end,
    ]
}

fn with_a_worker_out_of_its_group(pool: &ProcessPool, end: impl FnOnce(procession::Future<()>)) {
    let gate = Gate::new();
    let worker = pool.submit(Pid()).result().expect("a process id");
    let running = pool.submit(Join(gate.path()));
    gate.await_arrivals(1);
    end(running);
    eventually("the end of the worker", || !is_alive(worker));
}

fn a_worker_that_left_its_group_is_ended_at_a_deadline() {
    let pool = quiet().workers(1).timeout(Duration::from_secs(1)).build().expect("a pool");
    with_a_worker_out_of_its_group(&pool, |running| {
        let error = running.result().expect_err("an error");
        assert!(matches!(error, TaskError::TimedOut { .. }), "{error:?}");
    });
    succeeds_with(&pool, 20);
}

fn a_worker_that_left_its_group_is_ended_by_a_cancel() {
    let pool = pool(1);
    with_a_worker_out_of_its_group(&pool, |running| assert!(running.cancel()));
    succeeds_with(&pool, 20);
}

fn a_worker_that_left_its_group_is_ended_with_the_pool() {
    let pool = pool(1);
    with_a_worker_out_of_its_group(&pool, |running| {
        pool.shutdown(Shutdown::Kill);
        assert_eq!(running.result(), Err(TaskError::Cancelled));
    });
}

/// What only a superuser can try.
fn assert_works_as_superuser(play: &str) {
    if rustix::process::geteuid().is_root() {
        assert_works(&mut command(play));
    } else {
        println!("not tried: only a superuser can give up rights");
    }
}

fn a_pool_ends_after_its_program_gave_up_its_rights() {
    assert_works_as_superuser("gives up its rights");
}

fn a_pool_with_a_template_ends_after_its_program_gave_up_its_rights() {
    assert_works_as_superuser("gives up its rights over a template");
}

fn a_worker_that_cannot_be_ended_is_written_off() {
    assert_works_as_superuser("gives up its rights before a worker that cannot be ended");
}

/// Kills the program when it has told of its workers, and sees to it that these end.
#[track_caller]
fn end_with_the_program(play: &str, workers: usize) {
    let (mut program, pids) = start_and_hear_workers(command(play).stderr(Stdio::null()));
    assert_eq!(pids.len(), workers);
    assert!(pids.iter().all(|&pid| is_alive(pid)));
    harness::signal(program.id(), Signal::KILL);
    program.wait().expect("an end");
    let has_ended = |pid: &u32| !is_alive(*pid);
    eventually("the end of all workers", || pids.iter().all(has_ended));
}

fn a_process_that_a_task_replaced_ends_with_the_program() {
    if cfg!(all(target_os = "linux", not(feature = "portable"))) {
        end_with_the_program("runs what is replaced", 1);
    }
}

fn a_process_that_one_of_several_tasks_replaced_ends_with_the_program() {
    if cfg!(all(target_os = "linux", not(feature = "portable"))) {
        end_with_the_program("runs what is replaced, of three", 1);
    }
}

fn workers_that_have_not_reported_end_with_the_program() {
    if cfg!(all(target_os = "linux", not(feature = "portable"))) {
        end_with_the_program("waits for workers that do not report", 2);
    }
}

fn what_a_killed_program_left_of_its_starting_workers_is_removed_by_the_next_one() {
    if cfg!(feature = "portable") {
        return;
    }
    let tmp = tempfile::tempdir().expect("a directory");
    let left = || {
        let names = fs::read_dir(tmp.path()).expect("a directory");
        let names = names.map(|entry| entry.expect("an entry").file_name().into_string());
        names.filter(|name| name.as_ref().is_ok_and(|name| name.starts_with("procession-"))).count()
    };
    // The next program has its own directory there, or elsewhere.
    for variable in ["TMPDIR", "XDG_RUNTIME_DIR"] {
        let mut silent = command("waits for workers that do not report");
        let (mut program, pids) =
            start_and_hear_workers(silent.env("TMPDIR", tmp.path()).stderr(Stdio::null()));
        assert_eq!((pids.len(), left()), (2, 1), "a pool has one directory for all its workers");
        harness::signal(program.id(), Signal::KILL);
        program.wait().expect("an end");
        assert_works(crate::program::command("works").env(variable, tmp.path()));
        assert_eq!(left(), 0, "{variable}");
    }
}

fn workers_end_with_the_program_though_a_copy_of_it_lives() {
    let mut started = command("forks and waits");
    let (mut program, pids) = start_and_hear_workers(started.stderr(Stdio::null()));
    let (copy, workers) = pids.split_first().expect("a copy");
    assert_eq!(workers.len(), 2);
    harness::signal(program.id(), Signal::KILL);
    program.wait().expect("an end");
    eventually("the end of all workers", || workers.iter().all(|&pid| !is_alive(pid)));
    assert!(is_alive(*copy));
    harness::signal(*copy, Signal::KILL);
}

fn a_forked_copy_of_the_program_has_no_pool() {
    assert_works(&mut command("forks"));
}

fn a_forked_copy_of_a_worker_answers_nothing() {
    for slots in [1, 3] {
        let pool = quiet().workers(1).concurrency(slots).build().expect("a pool");
        for _ in 0..20 {
            assert_eq!(pool.submit(Fork()).result(), Ok(true));
        }
        succeeds_with(&pool, 100);
        assert_eq!(pool.stats().respawned, 0);
    }
}

fn it_works_where_ended_children_are_discarded() {
    assert_works(&mut command("ignores SIGCHLD"));
}

fn it_works_where_another_part_of_the_program_reaps() {
    assert_works(&mut command("reaps all children"));
}

fn it_works_with_a_timer_that_interrupts_all_the_time() {
    assert_works(&mut command("is interrupted all the time"));
}

fn it_works_with_all_signals_blocked() {
    assert_works(&mut command("blocks all signals"));
}

fn it_works_with_all_signals_ignored() {
    assert_works(&mut command("ignores all signals"));
}

fn it_works_with_the_default_for_broken_pipes() {
    assert_works(&mut command("ends what breaks a pipe"));
}

fn it_works_with_standard_streams_that_were_closed_meanwhile() {
    assert_works(&mut command("closes its standard streams"));
}

fn a_task_survives_what_asks_a_whole_session_to_end() {
    let pool = pool(1);
    let gate = Gate::new();
    let running = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        harness::signal(pool.pids()[0], signal);
    }
    let behind = pool.submit(Echo("behind".to_owned()));
    gate.open();
    assert!(running.result().is_ok());
    assert_eq!(behind.result(), Ok("behind".to_owned()));
    assert_eq!(pool.stats().respawned, 0);
}

fn a_task_that_closes_all_descriptors_is_finished() {
    let pool = pool(1);
    let gate = Gate::new();
    let running = pool.submit(CloseAll(gate.path()));
    gate.await_arrivals(1);
    // Longer than the worker takes to find its lifeline closed.
    std::thread::sleep(Duration::from_millis(2500));
    gate.open();
    assert_eq!(running.result(), Ok(pool.pids()[0]));
    succeeds_with(&pool, 20);
}

fn a_task_that_reads_the_terminal_gets_an_error() {
    // A terminal of its own.
    let mut script = Command::new("script");
    let Some(program) = env::current_exe().ok().and_then(|path| path.to_str().map(str::to_owned))
    else {
        return;
    };
    script.args(["-qec", &program, "/dev/null"]).stdin(Stdio::null());
    for (name, value) in command("reads the terminal").get_envs() {
        script.env(name, value.expect("a value"));
    }
    let Ok(output) = script.output() else {
        harness::skip("there is no program `script`");
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("it works"), "{said}");
}

fn a_shortage_of_descriptors_costs_no_worker_at_work() {
    assert_works(&mut within("ulimit -n 128", "is short of descriptors for a while"));
}

fn a_limit_of_file_sizes_is_told_and_ends_no_program() {
    assert_works(&mut within("ulimit -f 1", "cannot write files"));
}

/// A play within a limit that a shell sets.
fn within(limit: &str, play: &str) -> Command {
    let mut limited = Command::new("sh");
    let program = env::current_exe().expect("a path");
    limited.arg("-c").arg(format!("{limit}; exec \"$0\"")).arg(program);
    for (name, value) in command(play).get_envs() {
        limited.env(name, value.expect("a value"));
    }
    limited
}

fn what_tasks_kept_is_dropped_at_an_orderly_end() {
    for round in 0..50 {
        let dropped = tempfile::tempdir().expect("a directory");
        let slots = 1 + 2 * (round % 2);
        let pool = quiet().workers(1).concurrency(slots).build().expect("a pool");
        for _ in 0..slots {
            assert_eq!(pool.submit(Keep(dropped.path().to_owned())).result(), Ok(()));
        }
        pool.shutdown(Shutdown::Wait);
        let files = fs::read_dir(dropped.path()).expect("a directory").count();
        assert_eq!(files, 1, "round {round} with {slots} slots");
    }
    let executors: [Box<dyn procession::Engine>; 2] =
        [Box::new(procession::ThreadPool::new(3)), Box::new(procession::Sequential::new())];
    for executor in executors {
        let dropped = tempfile::tempdir().expect("a directory");
        let kept = executor.submit(Keep(dropped.path().to_owned()));
        assert_eq!(kept.result(), Ok(()));
        executor.shutdown(Shutdown::Wait);
        assert_eq!(fs::read_dir(dropped.path()).expect("a directory").count(), 1);
    }
}
