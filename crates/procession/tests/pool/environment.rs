//! Unusual environments in which a pool must work: directories, variables, descriptors, limits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Executor, Limits, Output, PoolError, PoolEvent, TaskError};

use crate::harness::Gate;
use crate::program::{ABORTS, LEFT, assert_works, command, command_after, command_of};
use crate::tasks::{Pass, Pid, quiet, succeeds_with};

/// For an event of a pool.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        nothing_is_left_behind_by_a_pool,
        a_pool_works_at_the_end_of_a_thread,
        a_hundred_thousand_tasks_leave_no_trace,
        a_program_that_copies_its_input_is_no_worker_and_is_tried_once,
        it_works_with_a_temporary_directory_whose_name_is_too_long_for_sockets,
        it_works_with_a_temporary_directory_that_is_missing,
        it_works_with_a_temporary_directory_that_is_read_only,
        it_works_when_the_directory_of_the_program_was_removed,
        it_works_with_a_temporary_directory_whose_name_is_odd,
        it_works_with_standard_input_closed,
        it_works_with_64_open_files,
        more_blobs_are_kept_than_there_are_descriptors,
        what_is_large_is_sent_with_few_descriptors,
        what_is_large_is_sent_when_there_are_descriptors_again,
        a_pool_that_can_never_send_what_is_large_gives_up,
        a_pool_that_can_start_a_worker_but_never_greet_it_gives_up,
        descriptors_that_are_short_at_the_first_handshake_are_awaited_and_a_later_pool_works,
        descriptors_that_are_short_at_the_first_handshake_cause_no_panic,
        a_worker_that_cannot_start_all_its_threads_runs_fewer_tasks_at_a_time,
        a_limit_of_memory_below_what_a_worker_uses_is_told_with_both_numbers,
        it_works_with_the_current_directory_deleted,
        it_works_with_a_umask_of_0,
        it_works_with_the_signal_for_broken_pipes_ignored,
        it_works_in_a_path_with_spaces_and_unicode,
        it_works_after_its_program_file_was_deleted,
        a_program_beside_this_one_that_neither_answers_nor_ends_is_passed_over_in_seconds,
        a_worker_that_a_wrapper_runs_as_another_user_says_nothing_of_its_own,
    ]
}

fn a_program_beside_this_one_that_neither_answers_nor_ends_is_passed_over_in_seconds() {
    let name = format!("silent-worker-{}", std::process::id());
    let program = std::env::current_exe().expect("a path").with_file_name(&name);
    // It neither writes to its standard input, which is the socket, nor reads it.
    std::os::unix::fs::symlink("/bin/sh", &program).expect("a link");
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let on_event = move |event: &PoolEvent| {
        if let PoolEvent::ProgramPassedOver { reason, .. } = event {
            tell.lock().expect("a sender").send(reason.clone()).expect("a receiver");
        }
    };
    // The start timeout is longer than all of these tests may take.
    let builder = quiet().workers(2).start_timeout(Duration::from_secs(3600)).on_event(on_event);
    let builder = builder.worker_args(["-c", "exec sleep 600"]);
    let pool = builder.worker_program_beside(name).build().expect("a pool");
    succeeds_with(&pool, 10);
    fs::remove_file(program).expect("the file");
    let reason = told.recv_timeout(PATIENCE).expect("an event");
    assert_eq!(reason, "it had not reported after 2 s");
    assert!(told.try_recv().is_err(), "it was passed over once");
}

fn a_hundred_thousand_tasks_leave_no_trace() {
    if cfg!(all(target_os = "linux", not(feature = "portable"))) {
        assert_works(&mut command("endures"));
    }
}

fn nothing_is_left_behind_by_a_pool() {
    let tmp = tempfile::tempdir().expect("a directory");
    assert_works(command("leaks").env("TMPDIR", tmp.path()));
    assert_eq!(fs::read_dir(tmp.path()).expect("a directory").count(), 0, "files");
}

fn a_program_that_copies_its_input_is_no_worker_and_is_tried_once() {
    let (sender, tries) = mpsc::channel();
    let tell = move |event: &PoolEvent| {
        if let PoolEvent::WorkerNotStarted { reason, .. } = event {
            let _ = sender.send(reason.clone());
        }
    };
    let pool =
        quiet().workers(1).worker_program("/bin/cat").on_event(tell).build().expect("a pool");
    let result = pool.submit(Pid()).result();
    let Err(TaskError::PoolBroken(error @ PoolError::WorkerNotServing { .. })) = result else {
        panic!("{result:?}");
    };
    let text = error.to_string();
    assert!(text.contains("/bin/cat: it printed what it was sent, and ended with"), "{text}");
    drop(pool);
    let tries: Vec<_> = tries.iter().collect();
    assert_eq!(tries.len(), 1, "{tries:?}");
}

fn a_pool_works_at_the_end_of_a_thread() {
    assert_works(&mut command("works at the end of a thread"));
}

fn works_with_tmpdir(dir: &Path) {
    assert_works(command("works").env("TMPDIR", dir));
}

fn it_works_with_a_temporary_directory_whose_name_is_too_long_for_sockets() {
    let tmp = tempfile::tempdir().expect("a directory");
    let long = tmp.path().join("x".repeat(100));
    fs::create_dir(&long).expect("a directory");
    works_with_tmpdir(&long);
}

fn it_works_with_a_temporary_directory_that_is_missing() {
    works_with_tmpdir(Path::new("/no/such/directory"));
}

fn it_works_with_a_temporary_directory_that_is_read_only() {
    let tmp = tempfile::tempdir().expect("a directory");
    fs::set_permissions(tmp.path(), fs::Permissions::from_mode(0o555)).expect("a mode");
    works_with_tmpdir(tmp.path());
    // Modes do not bind a superuser; here nobody can make a file.
    works_with_tmpdir(Path::new("/proc"));
}

/// As systemd does in `/dev/shm` when a user logs out.
fn it_works_when_the_directory_of_the_program_was_removed() {
    let tmp = tempfile::tempdir().expect("a directory");
    assert_works(command("loses its directory").env("TMPDIR", tmp.path()));
    assert_eq!(fs::read_dir(tmp.path()).expect("a directory").count(), 0);
}

fn it_works_with_a_temporary_directory_whose_name_is_odd() {
    let tmp = tempfile::tempdir().expect("a directory");
    let odd = tmp.path().join("ünï \"cödé\" \\ dir");
    fs::create_dir(&odd).expect("a directory");
    works_with_tmpdir(&odd);
    assert_works(command("works").env("TMPDIR", "relative").current_dir(tmp.path()));
    assert_works(command("works").env("TMPDIR", ""));
}

fn it_works_with_standard_input_closed() {
    assert_works(&mut command_after("exec <&-", "works"));
}

fn it_works_with_64_open_files() {
    assert_works(&mut command_after("ulimit -n 64", "works"));
}

fn more_blobs_are_kept_than_there_are_descriptors() {
    assert_works(&mut command_after("ulimit -n 128", "keeps blobs"));
}

fn what_is_large_is_sent_with_few_descriptors() {
    assert_works(&mut command_after("ulimit -n 128", "sends with few descriptors"));
}

fn what_is_large_is_sent_when_there_are_descriptors_again() {
    assert_works(&mut command_after("ulimit -n 128", "sends when there are descriptors again"));
}

fn a_pool_that_can_never_send_what_is_large_gives_up() {
    assert_works(&mut command_after("ulimit -n 128", "gives up without descriptors"));
}

fn a_pool_that_can_start_a_worker_but_never_greet_it_gives_up() {
    assert_works(&mut command_after("ulimit -n 128", "never has enough for a handshake"));
}

/// From none at all to enough for a handshake, with the number of workers.
const FEW: [usize; 6] = [0, 2, 5, 9, 14, 20];

fn descriptors_that_are_short_at_the_first_handshake_are_awaited_and_a_later_pool_works() {
    for left in FEW {
        let mut command = command_after("ulimit -n 128", "is short at its first handshake");
        assert_works(command.env(LEFT, left.to_string()));
    }
}

fn descriptors_that_are_short_at_the_first_handshake_cause_no_panic() {
    for left in FEW {
        let mut command = command_after("ulimit -n 128", "is short at its first handshake");
        assert_works(command.env(LEFT, left.to_string()).env(ABORTS, "1"));
    }
}

fn a_worker_that_cannot_start_all_its_threads_runs_fewer_tasks_at_a_time() {
    const WANTED: usize = 300;
    if cfg!(not(all(target_os = "linux", not(feature = "portable")))) {
        crate::harness::skip("it is about Linux");
    }
    let (narrowed, told) = mpsc::channel();
    let narrowed = Mutex::new(narrowed);
    let note = move |event: &PoolEvent| {
        if let PoolEvent::WorkerNarrowed { threads, wanted, reason, .. } = event {
            let _ = narrowed.lock().expect("no panic").send((*threads, *wanted, reason.clone()));
        }
    };
    // The stacks alone would take 600 MiB.
    let limits = Limits::none().address_space(256 << 20);
    let pool = quiet().workers(1).concurrency(WANTED).limits(limits).on_event(note);
    let pool = pool.build().expect("a pool");
    let (threads, wanted, reason) = told.recv_timeout(PATIENCE).expect("an event");
    assert!(wanted == WANTED && (2..200).contains(&threads), "{threads} of {wanted}");
    assert!(reason.contains("cannot start a thread"), "{reason}");
    let gate = Gate::new();
    let futures: Vec<_> = (0..WANTED).map(|_| pool.submit(Pass(gate.path()))).collect();
    gate.await_arrivals(threads);
    assert_eq!((pool.stats().running, gate.arrivals()), (threads, threads));
    gate.open();
    assert!(futures.into_iter().all(|future| future.result().is_ok()));
}

fn a_limit_of_memory_below_what_a_worker_uses_is_told_with_both_numbers() {
    if cfg!(not(target_os = "linux")) {
        crate::harness::skip("it is about Linux");
    }
    for bytes in [0, 1, 1 << 20] {
        let limits = Limits::none().address_space(bytes);
        let pool = quiet().workers(2).limits(limits).build().expect("a pool");
        match pool.submit(Pid()).result() {
            Err(TaskError::PoolBroken(PoolError::CannotStart { tries: 1, cause })) => {
                let told = format!("cannot limit the address space to {bytes} bytes: this process");
                assert!(cause.contains(&told), "{cause}");
                assert!(!cause.trim_end().ends_with(':'), "{cause}");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn it_works_with_the_current_directory_deleted() {
    let tmp = tempfile::tempdir().expect("a directory");
    let gone = tmp.path().join("gone");
    fs::create_dir(&gone).expect("a directory");
    assert_works(command_after("rmdir ../gone", "works").current_dir(gone));
}

fn it_works_with_a_umask_of_0() {
    assert_works(&mut command_after("umask 0", "works"));
}

fn it_works_with_the_signal_for_broken_pipes_ignored() {
    assert_works(&mut command_after("trap '' PIPE", "works"));
}

/// A directory on the file system of this program, so that the program can be linked there.
fn nearby() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

fn it_works_in_a_path_with_spaces_and_unicode() {
    let tmp = nearby();
    let program = tmp.path().join("ein prögramm 🇧🇷");
    fs::hard_link(std::env::current_exe().expect("a path"), &program).expect("a link");
    assert_works(&mut command_of(&program, "works"));
}

fn it_works_after_its_program_file_was_deleted() {
    let tmp = nearby();
    let program = tmp.path().join("short-lived");
    fs::hard_link(std::env::current_exe().expect("a path"), &program).expect("a link");
    assert_works(&mut command_of(&program, "works without its file"));
}

fn a_worker_that_a_wrapper_runs_as_another_user_says_nothing_of_its_own() {
    let this = std::env::current_exe().expect("a path");
    let as_another = ["setpriv", "--reuid=12345", "--clear-groups", "--"];
    let mut trial = Command::new(as_another[0]);
    let trial = trial.args(&as_another[1..]).arg("test").arg("-x").arg(&this);
    if !trial.status().is_ok_and(|status| status.success()) {
        crate::harness::skip(
            "this user cannot become another one, or that one cannot run this program",
        );
    }
    let dir = tempfile::tempdir().expect("a directory");
    let wrapper = dir.path().join("wrapper");
    let text = format!("#!/bin/sh\nexec {} '{}'\n", as_another.join(" "), this.display());
    fs::write(dir.path().join("draft"), text).expect("a script");
    // Copied by another process: a child that was just forked may have the file open, and then it cannot be run.
    let copied = Command::new("cp").arg(dir.path().join("draft")).arg(&wrapper).status();
    assert!(copied.expect("a copy").success());
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("a mode");
    let (send, lines) = mpsc::channel();
    let send = Mutex::new(send);
    let say = move |output: &Output<'_>| drop(send.lock().unwrap().send(output.line.to_owned()));
    let pool = quiet().workers(1).worker_program(wrapper).on_output(say).build().expect("a pool");
    assert!(pool.submit(Pid()).result().is_ok());
    drop(pool);
    assert_eq!(lines.iter().collect::<Vec<_>>(), [""; 0]);
}
