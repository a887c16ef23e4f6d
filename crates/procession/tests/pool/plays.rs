//! Programs that change their own process, their children or their signals without the pool's knowledge. Each is
//! this program, started again with a variable that names what it does (its play).

#![allow(unsafe_code, reason = "what these programs do has no safe interface")]

use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, fs, io, ptr, thread};

use procession::{
    Context, Executor, Exit, Failure, PoolError, PoolEvent, Registry, Shutdown, Task, TaskError,
    ThreadPool,
};
use rustix::process::{Signal, WaitOptions, getpgid, getppid, setpgid, wait};
use serde::{Deserialize, Serialize};

use crate::harness::{self, Gate};
use crate::tasks::{self, Bad, Echo, Ending, Pass, Pid};

const VARIABLE: &str = "PROCESSION_TEST_PLAY";

/// This program with a play to give.
pub(crate) fn command(play: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("a path"));
    command.env(VARIABLE, play);
    command
}

pub(crate) fn play_if_asked() {
    let Ok(play) = env::var(VARIABLE) else { return };
    // Its workers are not asked.
    match play.as_str() {
        "ignores SIGCHLD" => {
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            works_without_statuses();
        }
        "reaps all children" => {
            thread::spawn(|| {
                loop {
                    if wait(WaitOptions::empty()).is_err() {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            });
            works_without_statuses();
        }
        "is interrupted all the time" => is_interrupted_all_the_time(),
        "blocks all signals" => {
            unsafe {
                let mut all = std::mem::zeroed();
                libc::sigfillset(&mut all);
                libc::sigprocmask(libc::SIG_BLOCK, &all, ptr::null_mut());
            }
            works();
        }
        "ignores all signals" => {
            for signal in 1..=31 {
                unsafe { libc::signal(signal, libc::SIG_IGN) };
            }
            works_without_statuses();
        }
        "ends what breaks a pipe" => {
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            works();
        }
        "closes its standard streams" => closes_its_standard_streams(),
        "gives up its rights" => gives_up_its_rights(false),
        "gives up its rights before a worker that cannot be ended" => gives_up_its_rights(true),
        "gives up its rights over a template" => gives_up_its_rights_over_a_template(),
        "runs what is replaced" => runs_what_is_replaced(1),
        "runs what is replaced, of three" => runs_what_is_replaced(3),
        "waits for workers that do not report" => waits_for_silent_workers(),
        "forks" => forks(),
        "forks and waits" => forks_and_waits(),
        "is short of descriptors for a while" => is_short_of_descriptors_for_a_while(),
        "cannot write files" => cannot_write_files(),
        "reads the terminal" => reads_the_terminal(),
        other => panic!("no play is called {other:?}"),
    }
    process::exit(0);
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry
        .with::<Join>()
        .with::<Become>()
        .with::<Fork>()
        .with::<ReadTerminal>()
        .with::<CloseAll>()
        .with::<Keep>()
}

macro_rules! task {
    ($(#[$doc:meta])* $name:ident ($($field:ty),*) -> $output:ty: $task:ident, $context:ident => $run:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        pub(crate) struct $name($(pub $field),*);
        impl Task for $name {
            const NAME: &'static str = stringify!($name);
            type Output = $output;
            fn run(self, $context: &Context) -> Result<$output, Failure> {
                let $task = self;
                $run
            }
        }
    };
}

task!(/// Joins the process group of its coordinator and then waits at the gate.
Join(std::path::PathBuf) -> (): task, _c => {
    setpgid(None, Some(getpgid(getppid())?))?;
    harness::wait_at(&task.0);
    Ok(())
});
task!(/// Tells its process at the path, which then runs another program.
Become(std::path::PathBuf) -> (): task, _c => {
    let draft = task.0.with_extension("draft");
    fs::write(&draft, process::id().to_string())?;
    fs::rename(draft, task.0)?;
    Err(Command::new("sleep").arg("600").exec().into())
});
task!(/// Is run twice from a fork in its middle; tells whether it is the original.
Fork() -> bool: _task, _c => Ok(unsafe { libc::fork() } != 0));
task!(/// Reads a line from the terminal; gives the error.
ReadTerminal() -> String: _task, _c => {
    let read = fs::File::open("/dev/tty").and_then(io::read_to_string);
    Ok(read.map_or_else(|error| error.to_string(), |line| format!("read {line:?}")))
});
task!(/// Closes all descriptors but the standard ones and then waits at the gate.
CloseAll(std::path::PathBuf) -> u32: task, _c => {
    for fd in 3..256 {
        unsafe { libc::close(fd) };
    }
    harness::wait_at(&task.0);
    Ok(process::id())
});
task!(/// Keeps something in its process that writes a line to the file when it is dropped.
Keep(std::path::PathBuf) -> (): task, context => {
    struct Kept(std::path::PathBuf);
    impl Drop for Kept {
        fn drop(&mut self) {
            thread::sleep(Duration::from_millis(1));
            fs::write(self.0.join(process::id().to_string()), "").expect("a file");
        }
    }
    context.local(|| Kept(task.0));
    Ok(())
});

fn works() {
    let pool = tasks::quiet().workers(2).build().expect("a pool");
    tasks::succeeds_with(&pool, 200);
    assert!(pool.submit(Bad(Ending::Abort)).result().is_err());
    tasks::succeeds_with(&pool, 200);
    pool.shutdown(Shutdown::Wait);
    println!("it works");
}

/// Where the statuses of children cannot be had, each end is noticed and said to be unknown.
fn works_without_statuses() {
    let pool = tasks::quiet().workers(2).build().expect("a pool");
    tasks::succeeds_with(&pool, 20);
    for _ in 0..5 {
        match pool.submit(Bad(Ending::Abort)).result() {
            Err(TaskError::WorkerDied(death)) => {
                // Another part of the program that waits for children may come late.
                let by_abort = Exit::Signal(libc::SIGABRT);
                assert!([Exit::Unknown, by_abort].contains(&death.exit), "{death}");
                assert!(!death.to_string().contains("-1"), "{death}");
            }
            other => panic!("{other:?}"),
        }
        tasks::succeeds_with(&pool, 20);
    }
    // What is inherited ignored would keep a worker's own children from it.
    let status = pool.submit(tasks::Nested(1)).result();
    assert!(status.is_ok(), "{status:?}");
    let late = tasks::quiet().workers(1).timeout(Duration::from_millis(200)).build();
    let late = late.expect("a pool");
    let gate = Gate::new();
    let error = late.submit(Pass(gate.path())).result().expect_err("an error");
    assert!(matches!(error, TaskError::TimedOut { .. }), "{error:?}");
    drop(late);
    pool.shutdown(Shutdown::Wait);
    println!("it works");
}

fn is_interrupted_all_the_time() {
    extern "C" fn nothing(_: libc::c_int) {}
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as libc::sighandler_t;
        libc::sigaction(libc::SIGALRM, &action, ptr::null_mut());
        let often = libc::timeval { tv_sec: 0, tv_usec: 2_000 };
        let timer = libc::itimerval { it_interval: often, it_value: often };
        libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut());
    }
    works();
}

fn closes_its_standard_streams() {
    let report = unsafe { libc::dup(1) };
    for fd in 0..3 {
        unsafe { libc::close(fd) };
    }
    // The pool itself writes what workers print to what was standard error.
    let pool = procession::ProcessPool::builder().workers(2).build().expect("a pool");
    let long = "x".repeat(3000);
    for _ in 0..50 {
        let said = pool.submit(tasks::Say(long.clone(), long.clone())).result();
        assert_eq!(said, Ok(()));
        tasks::succeeds_with(&pool, 20);
    }
    pool.shutdown(Shutdown::Wait);
    let text = b"it works\n";
    unsafe { libc::write(report, text.as_ptr().cast(), text.len()) };
}

/// For a superuser: what it could kill before it cannot kill any more.
fn gives_up_its_rights(is_deaf: bool) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let pool = tasks::quiet()
        .workers(1)
        .on_event(move |event| heard.lock().expect("events").push(event.clone()))
        .build()
        .expect("a pool");
    let gate = Gate::new();
    let running = match is_deaf {
        true => pool.submit(CloseAll(gate.path())),
        false => pool.submit(Pass(gate.path())),
    };
    gate.await_arrivals(1);
    let worker = pool.pids()[0];
    if is_deaf {
        // Until its lifeline is known to be of no use.
        thread::sleep(Duration::from_millis(1500));
    }
    assert_eq!(unsafe { libc::setgid(65534) }, 0);
    assert_eq!(unsafe { libc::setuid(65534) }, 0);
    drop(pool);
    assert!(matches!(running.result(), Err(TaskError::Cancelled)));
    let events = events.lock().expect("events");
    let is_written_off = events.iter().any(|event| {
        matches!(event, PoolEvent::WorkerWrittenOff { pid, reason, .. }
            if *pid == worker && reason.contains("cannot be killed"))
    });
    assert_eq!(is_written_off, is_deaf, "{events:?}");
    if !is_deaf {
        harness::eventually("the end of the worker", || !harness::is_alive(worker));
    }
    // Not by a drop: the directory is another user's now.
    std::mem::forget(gate);
    println!("it works");
}

fn gives_up_its_rights_over_a_template() {
    let templates = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&templates);
    let pool = tasks::quiet()
        .workers(1)
        .preload(Pid())
        .on_event(move |event| {
            if let PoolEvent::TemplateStarted { pid } = event {
                heard.lock().expect("no panic").push(*pid);
            }
        })
        .build()
        .expect("a pool");
    tasks::succeeds_with(&pool, 10);
    assert_eq!(unsafe { libc::setgid(65534) }, 0);
    assert_eq!(unsafe { libc::setuid(65534) }, 0);
    drop(pool);
    for template in templates.lock().expect("no panic").drain(..) {
        harness::eventually("the end of the template", || !harness::is_alive(template));
    }
    println!("it works");
}

fn runs_what_is_replaced(slots: usize) {
    let pool = tasks::quiet().workers(1).concurrency(slots).build().expect("a pool");
    let gate = Gate::new();
    let told = gate.path().join("told");
    let _running = pool.submit(Become(told.clone()));
    harness::eventually("a process that is replaced", || told.exists());
    let pid = fs::read_to_string(told).expect("a process id");
    harness::eventually("its new program", || {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
    });
    println!("{pid}");
    println!("ready");
    thread::park();
}

fn waits_for_silent_workers() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("silent");
    fs::write(&program, "#!/bin/sh\nexec sleep 600\n").expect("a program");
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(&program, mode).expect("a mode");
    let pool = tasks::quiet()
        .workers(2)
        .worker_program(program)
        .start_timeout(Duration::from_secs(600))
        .build()
        .expect("a pool");
    tasks::await_workers(&pool);
    for pid in pool.pids() {
        println!("{pid}");
    }
    println!("ready");
    thread::park();
}

fn forks() {
    let pool = tasks::pool(2);
    let threads = ThreadPool::new(1);
    let gate = Gate::new();
    let before = pool.submit(Pass(gate.path()));
    let pending: Vec<_> = (0..100).map(|n| pool.submit(Echo(n.to_string()))).collect();
    let in_a_thread = threads.submit(Pass(gate.path()));
    gate.await_arrivals(2);
    let is_forked = |error: TaskError| error == TaskError::PoolBroken(PoolError::Forked);
    match unsafe { libc::fork() } {
        0 => {
            assert!(is_forked(pool.submit(Pid()).result().expect_err("a refusal")));
            assert!(is_forked(threads.submit(Pid()).result().expect_err("a refusal")));
            let mapped: Vec<_> = pool.map((0..100).map(|_| Pid())).collect();
            assert_eq!(mapped.len(), 100);
            assert!(mapped.into_iter().all(|result| is_forked(result.expect_err("a refusal"))));
            assert!(!before.cancel() && !in_a_thread.cancel());
            assert!(is_forked(before.result().expect_err("an orphan")));
            assert!(is_forked(in_a_thread.result().expect_err("an orphan")));
            drop(pending);
            assert_eq!((pool.pids(), pool.stats().pids), (vec![], vec![]));
            pool.shutdown(Shutdown::Wait);
            drop((pool, threads));
            let own = tasks::pool(1);
            tasks::succeeds_with(&own, 20);
            drop(own);
            unsafe { libc::_exit(7) };
        }
        child => {
            let mut status = 0;
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(libc::WEXITSTATUS(status), 7);
        }
    }
    gate.open();
    assert!(pool.pids().contains(&before.result().expect("an output")));
    assert_eq!(in_a_thread.result(), Ok(process::id()));
    assert!(pending.into_iter().all(|future| future.result().is_ok()));
    tasks::succeeds_with(&pool, 20);
    assert_eq!(pool.stats().respawned, 0);
    println!("it works");
}

/// The copy holds all descriptors that the pool has.
fn forks_and_waits() {
    let pool = tasks::pool(2);
    let gate = Gate::new();
    let _running = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let copy = unsafe { libc::fork() };
    if copy == 0 {
        // The test's reading end of the output ends with the original.
        unsafe { libc::close(1) };
        thread::sleep(Duration::from_secs(120));
        unsafe { libc::_exit(0) };
    }
    println!("{copy}");
    for pid in pool.pids() {
        println!("{pid}");
    }
    println!("ready");
    thread::park();
}

fn is_short_of_descriptors_for_a_while() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let pool = tasks::quiet()
        .workers(2)
        .on_event(move |event| heard.lock().expect("events").push(event.clone()))
        .build()
        .expect("a pool");
    tasks::await_workers(&pool);
    let gate = Gate::new();
    let running = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let idle = pool.submit(Pid()).result().expect("a process id");
    let at_work = pool.pids().into_iter().find(|pid| *pid != idle).expect("a process id");
    let open = || fs::File::open("/dev/null");
    let mut all: Vec<_> = std::iter::from_fn(|| open().ok()).collect();
    harness::signal(idle, Signal::KILL);
    harness::eventually("the news of many delays", || {
        // What a worker had before would do for the next one.
        all.extend(std::iter::from_fn(|| open().ok()));
        for pid in pool.pids().into_iter().filter(|pid| *pid != at_work) {
            let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            let _ = rustix::process::kill_process(pid.expect("a pid"), Signal::KILL);
        }
        let events = events.lock().expect("events");
        let is_delay = |event: &&PoolEvent| matches!(event, PoolEvent::WorkerDelayed { .. });
        events.iter().filter(is_delay).count() >= 8
    });
    assert!(!running.is_done());
    drop(all);
    tasks::await_workers(&pool);
    gate.open();
    assert_eq!(running.result(), Ok(at_work));
    tasks::succeeds_with(&pool, 20);
    println!("it works");
}

fn cannot_write_files() {
    let delays = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&delays);
    let count = move |event: &PoolEvent| {
        *counter.lock().unwrap() += i32::from(matches!(event, PoolEvent::WorkerDelayed { .. }));
    };
    let pool = tasks::quiet().workers(1).on_event(count).build().expect("a pool");
    match pool.submit(Pid()).result() {
        Err(TaskError::PoolBroken(error)) => {
            assert!(error.to_string().contains("ulimit -f"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(*delays.lock().unwrap(), 0, "no start is tried again");
    println!("it works");
}

fn reads_the_terminal() {
    let pool = tasks::pool(1);
    let read = pool.submit(ReadTerminal()).result().expect("an output");
    assert!(read.contains("os error"), "{read}");
    println!("it works");
}
