//! Workers that cannot be started: the futures have an error, in bounded time, after a bounded number of
//! tries.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Builder, Executor, PoolError, PoolEvent, ProcessPool, Shutdown, TaskError};
use tempfile::TempDir;

use crate::harness::eventually;
use crate::impostor::{Guise, pool_of};
use crate::tasks::{Bad, Ending, Pid, pool, quiet, succeeds_with};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_worker_program_that_is_missing_is_refused_at_once,
        a_worker_program_that_is_a_directory_is_refused_at_once,
        a_worker_program_that_is_not_executable_is_refused_at_once,
        a_worker_program_that_is_no_program_breaks_the_pool,
        a_worker_program_that_exits_at_once_breaks_the_pool,
        a_worker_program_that_stays_silent_breaks_the_pool,
        a_worker_of_another_build_breaks_the_pool_at_the_first_try,
        a_worker_of_another_build_of_the_users_program_breaks_the_pool_at_the_first_try,
        a_worker_that_speaks_another_language_breaks_the_pool_at_the_first_try,
        a_worker_that_dies_again_and_again_breaks_the_pool,
        a_main_that_never_serves_is_told_so_and_starts_no_swarm,
        a_main_that_ends_or_goes_on_without_serving_is_told_so_at_the_first_try,
        a_worker_that_gets_no_time_to_report_is_not_said_not_to_serve,
        a_main_that_panics_before_it_serves_is_quoted,
        a_wrapper_that_does_not_exec_is_told_so_at_the_first_try,
        a_wrapper_that_replaces_the_standard_input_is_told_so_at_the_first_try,
        a_wrapper_that_clears_the_environment_is_told_so_and_starts_no_swarm,
        a_wrapper_that_leaves_a_copy_of_the_program_behind_starts_no_swarm,
        a_main_that_builds_a_pool_before_it_serves_is_told_so_at_the_first_try,
        a_worker_that_ends_unheard_holds_nothing_up_when_its_directory_is_gone,
        what_a_program_said_is_told_without_control_characters,
        a_worker_that_does_not_know_the_task_says_what_to_do,
        a_program_that_fails_now_and_then_is_tried_again,
        a_missing_program_beside_this_one_leaves_this_one,
        a_broken_pool_can_be_shut_down,
    ]
}

/// A program in a directory of its own, which counts how often it is started.
pub(crate) struct Script {
    dir: TempDir,
}

impl Script {
    pub(crate) fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let script = Self { dir };
        script.say(text);
        script
    }

    pub(crate) fn say(&self, text: &str) {
        let script = self;
        let starts = script.dir.path().join("starts");
        let text = format!("#!/bin/sh\necho >> '{}'\n{text}\n", starts.display());
        // Copied by another process: while one of this process's own children, just forked, still
        // had the file open for writing, the system would not run it.
        let draft = script.dir.path().join("draft");
        fs::write(&draft, text).expect("a script");
        let copied = std::process::Command::new("cp").arg(draft).arg(script.path()).status();
        assert!(copied.expect("cp").success());
        fs::set_permissions(script.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("worker.sh")
    }

    pub(crate) fn starts(&self) -> usize {
        let starts = fs::read_to_string(self.dir.path().join("starts")).unwrap_or_default();
        starts.lines().count()
    }
}

/// The most that a pool may try with each of two workers.
const TRIES: usize = 2 * 8;

fn refusal(path: &Path) -> String {
    match ProcessPool::builder().worker_program(path).build() {
        Err(PoolError::Program { path: named, reason }) => {
            assert_eq!(named, path);
            reason
        }
        other => panic!("{other:?}"),
    }
}

/// Submits tasks, which all must fail for one reason, and gives that.
#[track_caller]
fn breaks(pool: &ProcessPool) -> (u32, String) {
    let futures: Vec<_> = (0..10).map(|_| pool.submit(Pid())).collect();
    let mut errors: Vec<_> =
        futures.into_iter().map(|future| future.result().expect_err("an error")).collect();
    errors.push(pool.submit(Pid()).result().expect_err("what comes later fails the same way"));
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
    match &errors[0] {
        TaskError::PoolBroken(PoolError::CannotStart { tries, cause }) => (*tries, cause.clone()),
        other => panic!("{other:?}"),
    }
}

fn a_worker_program_that_is_missing_is_refused_at_once() {
    assert!(refusal(Path::new("/no/such/worker")).contains("No such file"));
}

fn a_worker_program_that_is_a_directory_is_refused_at_once() {
    assert_eq!(refusal(&std::env::temp_dir()), "it is not a file");
}

fn a_worker_program_that_is_not_executable_is_refused_at_once() {
    let script = Script::new("");
    fs::set_permissions(script.path(), fs::Permissions::from_mode(0o644)).expect("a mode");
    assert_eq!(refusal(&script.path()), "it is not executable");
}

fn a_worker_program_that_is_no_program_breaks_the_pool() {
    let script = Script::new("");
    fs::write(script.path(), [0x7f, 0x45, 0x4c]).expect("rubbish");
    let pool = quiet().workers(2).worker_program(script.path()).build().expect("a pool");
    let (_, cause) = breaks(&pool);
    assert!(cause.contains("cannot start") && cause.contains("worker.sh"), "{cause}");
}

fn a_worker_program_that_exits_at_once_breaks_the_pool() {
    let script = Script::new("echo out of luck >&2; exit 3");
    let told = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&told);
    let count = move |event: &PoolEvent| {
        let PoolEvent::WorkerNotStarted { pid, reason, was_needed: true, .. } = event else {
            return;
        };
        assert!(*pid > 0 && reason.contains("it last said: out of luck"), "{event:?}");
        counts.fetch_add(1, Ordering::SeqCst);
    };
    let pool = quiet().workers(2).worker_program(script.path()).on_event(count);
    let pool = pool.build().expect("a pool");
    let (tries, cause) = breaks(&pool);
    assert!(told.load(Ordering::SeqCst) > 1, "it is told each time");
    assert!(tries > 1, "it is tried again");
    assert!(script.starts() <= TRIES, "{} starts", script.starts());
    let what = "it ended with exit code 3 before it was ready; it last said: out of luck";
    assert!(cause.contains("worker.sh") && cause.contains(what), "{cause}");
    eventually("the end of all workers", || pool.pids().is_empty());
}

fn a_worker_program_that_stays_silent_breaks_the_pool() {
    let script = Script::new("echo hm; exec sleep 600");
    let pool = quiet()
        .workers(2)
        .worker_program(script.path())
        .start_timeout(Duration::from_millis(50))
        .build()
        .expect("a pool");
    let (_, cause) = breaks(&pool);
    assert!(script.starts() <= TRIES, "{} starts", script.starts());
    assert!(cause.contains("it had not reported after 50 ms"), "{cause}");
}

fn a_worker_of_another_build_breaks_the_pool_at_the_first_try() {
    let (tries, cause) = breaks(&pool_of(Guise::OfAnotherBuild).build().expect("a pool"));
    assert_eq!(tries, 1);
    assert!(cause.contains("it is of another build (the build of yesterday, not "), "{cause}");
}

fn a_worker_of_another_build_of_the_users_program_breaks_the_pool_at_the_first_try() {
    let (tries, cause) = breaks(&quiet().workers(2).build_id("1.1").build().expect("a pool"));
    assert_eq!(tries, 1);
    assert!(cause.contains("it is of another build (") && cause.contains("-1.1): "), "{cause}");
}

fn a_worker_that_speaks_another_language_breaks_the_pool_at_the_first_try() {
    let (tries, cause) = breaks(&pool_of(Guise::Mumbles).build().expect("a pool"));
    assert_eq!(tries, 1);
    assert!(cause.contains("it uses another version of the protocol"), "{cause}");
}

fn a_worker_that_dies_again_and_again_breaks_the_pool() {
    let (starts, news) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counts, hears) = (Arc::clone(&starts), Arc::clone(&news));
    let count = move |event: &PoolEvent| {
        hears.fetch_add(1, Ordering::SeqCst);
        if matches!(event, PoolEvent::WorkerStarted { .. }) {
            counts.fetch_add(1, Ordering::SeqCst);
        }
    };
    let pool = pool_of(Guise::DiesWhenReady).on_event(count).build().expect("a pool");
    // A task that a worker begins is the cause of its end, and one that was done would show that the
    // workers are of some use after all. So it is asked only when nothing happens for longer than the
    // longest pause between two starts.
    let mut asked = 0;
    let is_broken = |pool: &ProcessPool| {
        matches!(pool.submit(Bad(Ending::Abort)).result(), Err(TaskError::PoolBroken(_)))
    };
    loop {
        let before = news.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(2500));
        if news.load(Ordering::SeqCst) == before {
            asked += 1;
            if is_broken(&pool) {
                break;
            }
        }
    }
    let (_, cause) = breaks(&pool);
    assert!(cause.contains("exit code 7"), "{cause}");
    assert!(starts.load(Ordering::SeqCst) <= TRIES + asked);
}

fn a_main_that_never_serves_is_told_so_and_starts_no_swarm() {
    let error = refuses(&pool_of(Guise::NeverServes).build().expect("a pool"));
    assert!(matches!(error, PoolError::WorkerNotServing { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("it builds a pool instead of serving"), "{text}");
    assert!(text.contains("procession::worker::serve_if_asked(registry) first thing"), "{text}");
}

fn a_main_that_ends_or_goes_on_without_serving_is_told_so_at_the_first_try() {
    for (guise, what, is_known_not_to_serve) in [
        (Guise::Ends, "it ended with exit code 0 before it was ready", true),
        (Guise::GoesOn, "it had not reported after 300 ms: it does not call procession", false),
    ] {
        let tried = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&tried);
        let count = move |event: &PoolEvent| {
            if matches!(event, PoolEvent::WorkerNotStarted { .. }) {
                counts.fetch_add(1, Ordering::SeqCst);
            }
        };
        let pool = pool_of(guise).start_timeout(Duration::from_millis(300)).on_event(count);
        let pool = pool.build().expect("a pool");
        let error = refuses(&pool);
        let is_not_serving = matches!(error, PoolError::WorkerNotServing { .. });
        assert_eq!(is_not_serving, is_known_not_to_serve, "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(what) && text.contains("procession::worker::serve_if_asked"),
            "{text}"
        );
        pool.shutdown(Shutdown::Wait);
        assert!(tried.load(Ordering::SeqCst) <= pool.workers(), "one try of each worker");
    }
}

fn a_worker_that_gets_no_time_to_report_is_not_said_not_to_serve() {
    // Repeated: the timeout passes before, while or after the pool is being built.
    for _ in 0..20 {
        let pool = quiet().workers(1).start_timeout(Duration::ZERO).build().expect("a pool");
        let (tries, cause) = breaks(&pool);
        assert_eq!(tries, 1);
        assert!(cause.contains("it had not reported after 0 ns"), "{cause}");
    }
}

fn a_main_that_panics_before_it_serves_is_quoted() {
    let error = refuses(&pool_of(Guise::Panics).build().expect("a pool"));
    assert!(matches!(error, PoolError::WorkerNotServing { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("it ended with exit code 101 before it was ready"), "{text}");
    assert!(text.contains("panicked at ") && text.contains("impostor.rs"), "{text}");
    assert!(text.contains("there are no settings in the place for them"), "{text}");
}

fn a_wrapper_that_does_not_exec_is_told_so_at_the_first_try() {
    let this = std::env::current_exe().expect("a path");
    let script = Script::new(&format!("'{}'; exit $?", this.display()));
    let pool = quiet().workers(2).worker_program(script.path()).build().expect("a pool");
    let error = refuses(&pool);
    assert!(matches!(error, PoolError::WorkerWrapped { .. }), "{error:?}");
    assert!(error.to_string().contains("with `exec`"), "{error}");
    pool.shutdown(Shutdown::Wait);
    assert!(script.starts() <= 2, "{} starts", script.starts());
}

fn a_wrapper_that_replaces_the_standard_input_is_told_so_at_the_first_try() {
    only_on_linux();
    let this = std::env::current_exe().expect("a path");
    let all = "exec 'THIS' < /dev/null > /dev/null 2>&1";
    let closed = "for fd in 3 4 5 6 7 8 9; do eval \"exec $fd>&-\"; done; 'THIS' < /dev/null > /dev/null 2>&1; exit";
    for text in ["exec 'THIS' < /dev/null", "exec 'THIS' <&-", "cat | 'THIS'", all, closed] {
        let script = Script::new(&text.replace("THIS", &this.display().to_string()));
        let pool = quiet().workers(2).worker_program(script.path()).build().expect("a pool");
        let error = refuses(&pool);
        assert!(matches!(error, PoolError::WorkerWrapped { .. }), "{text}: {error:?}");
        let words = error.to_string();
        assert!(words.contains("it replaced the standard input of the program"), "{words}");
        assert!(words.contains("leave its standard input alone"), "{words}");
        pool.shutdown(Shutdown::Wait);
        assert!(script.starts() <= 2, "{text}: {} starts", script.starts());
    }
}

/// What wrappers do that clear the environment of the program THIS.
const CLEARING: [&str; 9] = [
    "exec env -i 'THIS'",
    "env -i 'THIS'",
    "exec env -u PROCESSION_INVITATION 'THIS'",
    "PROCESSION_INVITATION= exec 'THIS'",
    "exec env -i 'THIS' < /dev/null",
    "env -i 'THIS' < /dev/null 2>&1",
    "for fd in 3 4 5 6 7 8 9; do eval \"exec $fd>&-\"; done; exec env -i 'THIS'",
    "for fd in 3 4 5 6 7 8 9; do eval \"exec $fd>&-\"; done; env -i 'THIS' < /dev/null; exit",
    "for fd in 3 4 5 6 7 8 9; do eval \"exec $fd>&-\"; done; exec env -i setsid -w 'THIS' < /dev/null > /dev/null 2>&1",
];

fn only_on_linux() {
    if cfg!(not(all(target_os = "linux", not(feature = "portable")))) {
        crate::harness::skip("it is about Linux");
    }
}

fn a_wrapper_that_clears_the_environment_is_told_so_and_starts_no_swarm() {
    only_on_linux();
    for (text, how) in CLEARING.iter().flat_map(|text| [(text, SWARMS), (text, SWARMS_UNSERVED)]) {
        let (script, pool) = swarm(text, how);
        let pool = pool.build().expect("a pool");
        let error = refuses(&pool);
        assert!(matches!(error, PoolError::WorkerWrapped { .. }), "{text}: {error:?}");
        let words = error.to_string();
        assert!(words.contains("it cleared the environment of the program"), "{text}: {words}");
        pool.shutdown(Shutdown::Wait);
        assert!(script.starts() <= 2, "{text}: {} starts", script.starts());
    }
}

fn a_wrapper_that_leaves_a_copy_of_the_program_behind_starts_no_swarm() {
    only_on_linux();
    // The process that was started ends at once, and the program is not its child any more.
    let (script, pool) = swarm("exec setsid env -i 'THIS' < /dev/null", SWARMS_UNSERVED);
    let text = refuses(&pool.build().expect("a pool")).to_string();
    // What the program says may come too late to be read.
    let is_known = text.contains("it cleared the environment of the program")
        || text.contains("it ended with exit code 0 before it was ready");
    assert!(is_known, "{text}");
    assert!(script.starts() <= TRIES, "{} starts", script.starts());
}

/// By these names this program is one whose workers are what is called `wrapper` beside it; and it
/// serves itself if it was asked, or does not.
const SWARMS: &str = "swarms";
const SWARMS_UNSERVED: &str = "swarms-unserved";

/// A wrapper that does this with a program of that name, and a pool of such workers.
fn swarm(text: &str, name: &str) -> (Script, Builder) {
    let this = std::env::current_exe().expect("a path");
    let script = Script::new("");
    let program = script.dir.path().join(name);
    std::os::unix::fs::symlink(&this, &program).expect("a link");
    script.say(&text.replace("THIS", &program.display().to_string()));
    std::os::unix::fs::symlink(script.path(), script.dir.path().join("wrapper")).expect("a link");
    let pool = quiet().workers(2).worker_program(script.path());
    (script, pool)
}

pub(crate) fn swarm_if_named_so() {
    let Some(name) = std::env::args_os().next().map(PathBuf::from) else { return };
    if name.ends_with(SWARMS) {
        procession::worker::serve_if_asked(crate::tasks::registry());
    } else if !name.ends_with(SWARMS_UNSERVED) {
        return;
    }
    let built = quiet().workers(2).worker_program(name.with_file_name("wrapper")).build();
    // What happens next is that its workers do the same.
    let is_refused = built.map(|pool| pool.submit(Pid()).result().is_ok());
    std::process::exit(i32::from(is_refused.is_err()));
}

fn a_main_that_builds_a_pool_before_it_serves_is_told_so_at_the_first_try() {
    for guise in [Guise::BuildsFirst, Guise::AsksAndBuilds] {
        let pool = pool_of(guise).build().expect("a pool");
        let error = refuses(&pool);
        assert!(matches!(error, PoolError::WorkerNotServing { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("it builds a pool instead of serving"), "{text}");
    }
}

fn a_worker_that_ends_unheard_holds_nothing_up_when_its_directory_is_gone() {
    // The name of the directory is in the invitation. A second worker would have the same one.
    let remove = r#"rm -r "$(echo "$PROCESSION_INVITATION" \
        | sed 's/.*"awaited":"\([^"]*\)".*/\1/')"; exit 1"#;
    let script = Script::new(remove);
    let pool = quiet().workers(1).worker_program(script.path()).build().expect("a pool");
    let (_, cause) = breaks(&pool);
    assert!(cause.contains("it ended with exit code 1 before it was ready"), "{cause}");
    assert!(!cause.contains("rm: "), "{cause}");
    pool.shutdown(Shutdown::Wait);
}

fn what_a_program_said_is_told_without_control_characters() {
    let script = Script::new(r"printf '\033[2Jgone\n' >&2; exit 1");
    let pool = quiet().workers(1).worker_program(script.path()).build().expect("a pool");
    let (_, cause) = breaks(&pool);
    assert!(cause.ends_with(r"; it last said: \u{1b}[2Jgone"), "{cause:?}");
}

/// Submits a task, which must fail because the pool cannot start workers.
#[track_caller]
pub(crate) fn refuses(pool: &ProcessPool) -> PoolError {
    match pool.submit(Pid()).result() {
        Err(TaskError::PoolBroken(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn a_worker_that_does_not_know_the_task_says_what_to_do() {
    let pool = pool_of(Guise::Ignorant).build().expect("a pool");
    for _ in 0..10 {
        let result = pool.submit(Pid()).result();
        let Err(TaskError::Undecodable { what, reason, .. }) = result else { panic!("{result:?}") };
        assert_eq!(what, "task");
        assert_eq!(reason, "the worker knows no task named \"Pid\": add it to its Registry");
    }
}

fn a_program_that_fails_now_and_then_is_tried_again() {
    let this = std::env::current_exe().expect("a path");
    let once = "[ -e \"$0.failed\" ] || { touch \"$0.failed\"; exit 1; }";
    let script = Script::new(&format!("{once}; exec '{}'", this.display()));
    let pool = quiet().workers(1).worker_program(script.path()).build().expect("a pool");
    succeeds_with(&pool, 10);
    assert_eq!(script.starts(), 2);
}

fn a_missing_program_beside_this_one_leaves_this_one() {
    let pool = quiet().workers(1).worker_program_beside("no-such-worker").build().expect("a pool");
    succeeds_with(&pool, 10);
}

fn a_broken_pool_can_be_shut_down() {
    for how in [Shutdown::Wait, Shutdown::CancelPending, Shutdown::Kill] {
        let pool = pool_of(Guise::Mumbles).build().expect("a pool");
        breaks(&pool);
        pool.shutdown(how);
        eventually("nobody", || pool.pids().is_empty());
        assert!(pool.submit(Pid()).result().is_err());
    }
    // Others are not harmed.
    succeeds_with(&pool(1), 10);
}
