//! Whole programs that have a pool: this program, started again with a variable that says what it does, in an
//! environment that the test chooses.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::{env, fs, process, thread};

use procession::{Blob, Executor, ProcessPool, Shutdown, TaskError, ThreadPool};

use crate::harness::{self, ON_PURPOSE};
use crate::tasks::{self, Children, Ending, Pass};

const VARIABLE: &str = "PROCESSION_TEST_PROGRAM";

pub(crate) fn play_if_asked() {
    let Ok(part) = env::var(VARIABLE) else { return };
    match part.as_str() {
        "works" => works(),
        "leaks" => leaks(),
        "endures" => endures(),
        "loses its directory" => loses_its_directory(),
        "works at the end of a thread" => works_at_the_end_of_a_thread(),
        "keeps blobs" => keeps_blobs(),
        "has templates that die" => has_templates_that_die(),
        "sends with few descriptors" => sends_with_few_descriptors(),
        "sends when there are descriptors again" => sends_when_there_are_descriptors_again(),
        "gives up without descriptors" => gives_up_without_descriptors(),
        "never has enough for a handshake" => never_has_enough_for_a_handshake(),
        "is short at its first handshake" => is_short_at_its_first_handshake(),
        "receives with no descriptors" => crate::spoilers::receives_with_no_descriptors(),
        "sends more than files may hold" => crate::spoilers::sends_more_than_files_may_hold(),
        "works without its file" => {
            fs::remove_file(env::current_exe().expect("a path")).expect("a removed file");
            works();
        }
        ending => ends(ending),
    }
    process::exit(0);
}

/// Runs a few tasks and says so.
fn works() {
    let pool = tasks::quiet().workers(2).build().expect("a pool");
    tasks::succeeds_with(&pool, 20);
    // Shared memory, and new workers, are made of the same scarce things.
    let long = "x".repeat(1_000_000);
    assert_eq!(pool.submit(tasks::Length(long)).result(), Ok(1_000_000));
    assert!(pool.submit(tasks::Bad(Ending::Abort)).result().is_err());
    tasks::succeeds_with(&pool, 20);
    pool.shutdown(Shutdown::Wait);
    println!("it works");
}

/// The directory of the program is removed while the program has a pool, and before it makes another one.
fn loses_its_directory() {
    let _private = procession::PrivateDir::create().expect("a directory");
    let pool = tasks::pool(1);
    tasks::succeeds_with(&pool, 20);
    fs::remove_dir_all(tempfile::env::temp_dir()).expect("it was there");
    assert!(pool.submit(tasks::Bad(Ending::Abort)).result().is_err());
    tasks::succeeds_with(&pool, 20);
    works();
}

/// Uses and drops executors in a destructor at the end of a thread, where the thread's variables are gone.
fn works_at_the_end_of_a_thread() {
    struct AtTheEnd(ProcessPool, ThreadPool);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            let Self(processes, threads) = self;
            tasks::succeeds_with(processes, 20);
            let long = Blob::from(vec![7; 100_000]);
            let back = processes.submit(tasks::Bytes(long.clone())).result();
            assert!(back.is_ok_and(|back| back == long));
            assert!(processes.submit(tasks::Bad(Ending::Panic)).result().is_err());
            assert_eq!(threads.submit(tasks::Echo("x".to_owned())).result().as_deref(), Ok("x"));
            processes.shutdown(Shutdown::Wait);
            println!("it works");
        }
    }
    thread_local!(static LAST: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) });
    let executors = AtTheEnd(tasks::pool(2), ThreadPool::new(2));
    let thread = thread::spawn(|| {
        // What a thread has first, it drops last.
        LAST.set(Some(executors));
        LAST.with_borrow(|last| {
            let AtTheEnd(processes, threads) = last.as_ref().expect("executors");
            tasks::succeeds_with(processes, 20);
            assert!(threads.map([tasks::Bytes(Blob::default())]).all(|back| back.is_ok()));
        });
    });
    thread.join().expect("no panic");
}

/// Has many pools one after the other and compares what they leave behind.
fn leaks() {
    let one_pool = |how| {
        let pool = tasks::pool(2);
        tasks::succeeds_with(&pool, 20);
        assert!(pool.submit(tasks::Bad(Ending::Abort)).result().is_err());
        tasks::succeeds_with(&pool, 20);
        pool.shutdown(how);
    };
    let files = open_files;
    let threads = || fs::read_dir("/proc/self/task").expect("a directory").count();
    one_pool(Shutdown::Wait);
    let before = files();
    for how in [Shutdown::Wait, Shutdown::CancelPending, Shutdown::Kill].repeat(3) {
        one_pool(how);
        // For a moment the system still lists a thread that has been joined.
        harness::eventually("the end of all threads", || threads() == 1);
        assert_eq!(files(), before, "open files after {how:?}");
    }
    println!("it works");
}

/// What the descriptors of this program lead to.
fn open_files() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").expect("a directory").flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
}

/// Runs a great many tasks, with a crash now and then, and watches what the pool keeps of them.
fn endures() {
    let pool = tasks::quiet().workers(2).build().expect("a pool");
    let run = |tasks: usize| {
        for _ in 0..tasks / 10_000 {
            tasks::succeeds_with(&pool, 10_000);
            assert!(pool.submit(tasks::Bad(Ending::Abort)).result().is_err());
        }
        // Until each worker has done something, one may still be starting.
        harness::eventually("work of all workers", || {
            let at_work = pool.map((0..100).map(|_| tasks::Pid())).map(|pid| pid.expect("a pid"));
            let at_work: HashSet<_> = at_work.collect();
            at_work.len() == pool.workers() && at_work == HashSet::from_iter(pool.pids())
        });
    };
    let count = |what: &str| fs::read_dir(format!("/proc/self/{what}")).expect("a list").count();
    let resident_pages = || -> u64 {
        let statm = fs::read_to_string("/proc/self/statm").expect("numbers");
        statm.split(' ').nth(1).expect("a number").parse().expect("a number")
    };
    let zombies = || {
        let children = fs::read_to_string(format!("/proc/self/task/{}/children", process::id()));
        let pids = children.unwrap_or_default();
        pids.split_whitespace()
            .filter(|pid| !harness::is_alive(pid.parse().expect("a pid")))
            .count()
    };
    // Until then caches fill up and the allocator finds its size.
    run(30_000);
    let before = open_files();
    let (threads, pages) = (count("task"), resident_pages());
    run(70_000);
    harness::eventually("as many threads as before", || count("task") <= threads);
    harness::eventually(&format!("as many files as before: {before:?}"), || {
        let now = open_files();
        if now.len() > before.len() {
            eprintln!("open files: {now:?}");
        }
        now.len() <= before.len()
    });
    assert_eq!(zombies(), 0);
    let grown = resident_pages().saturating_sub(pages) * 4096;
    // A task and its future that are kept take half a kilobyte, so 35 MB in all.
    assert!(grown < 20 << 20, "the program has grown by {grown} bytes");
    println!("it works");
}

/// Each template is killed as soon as it has made a copy, before it can answer. No other process reaps these copies.
fn has_templates_that_die() {
    let children = || {
        let threads = fs::read_dir("/proc/self/task").expect("a directory").flatten();
        let of = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children"));
        threads.filter_map(|thread| of(thread).ok()).collect::<String>()
    };
    let pool = tasks::quiet().workers(2).preload(tasks::Pid());
    let pool = pool.worker_env("PROCESSION_TEST_TEMPLATE_DIES", "").build().expect("a pool");
    let broken = pool.submit(tasks::Pid()).result();
    assert!(
        broken.as_ref().is_err_and(|error| error.to_string().contains("cannot copy the template")),
        "{broken:?}"
    );
    pool.shutdown(Shutdown::Wait);
    assert_eq!(children(), "", "they were not waited for");
    println!("it works");
}

/// Has many tasks wait and keeps all outputs, each with bytes of its own.
fn keeps_blobs() {
    let pool = tasks::quiet().workers(2).build().expect("a pool");
    let blobs: Vec<_> = (0..500_usize).map(|n| vec![n as u8; 20_000 + n]).collect();
    let futures: Vec<_> =
        blobs.iter().map(|bytes| pool.submit(tasks::Bytes(bytes.clone().into()))).collect();
    let kept: Vec<_> =
        futures.into_iter().map(|future| future.result().expect("an output")).collect();
    assert!(kept.iter().zip(&blobs).all(|(kept, sent)| **kept == **sent));
    // There is enough left for other things, such as another worker.
    assert!(pool.submit(tasks::Bad(Ending::Abort)).result().is_err());
    tasks::succeeds_with(&pool, 20);
    println!("it works");
}

/// Leaves only this number of descriptors to the rest of this program. Threads of a pool, such as the one that sweeps, may
/// close one a little later: then it is taken, too.
fn leave_descriptors(number: usize) -> Vec<fs::File> {
    let open = || fs::File::open("/dev/null");
    let mut files = Vec::new();
    loop {
        let before = files.len();
        files.extend(std::iter::from_fn(|| open().ok()));
        if files.len() == before {
            break;
        }
        thread::sleep(std::time::Duration::from_millis(100));
    }
    files.truncate(files.len().saturating_sub(number));
    files
}

/// Sends large texts and many blobs, each of which takes two descriptors on its way.
fn sends_with_few_descriptors() {
    let pool = tasks::pool(1);
    // Until the worker is ready, it has more descriptors here.
    tasks::succeeds_with(&pool, 1);
    let pids = pool.pids();
    let length = |bytes: &[usize]| {
        let blobs = bytes.iter().map(|len| vec![1; *len].into()).collect();
        pool.submit(tasks::LengthOfAll(blobs)).result()
    };
    for left in [40, 10, 3, 2] {
        let _files = leave_descriptors(left);
        let text = "x".repeat(1_000_000);
        assert_eq!(pool.submit(tasks::Length(text)).result(), Ok(1_000_000), "{left}");
        assert_eq!(length(&[10_000; 100]), Ok(1_000_000), "{left}");
    }
    // Short ones can do without.
    for left in [1, 0] {
        let _files = leave_descriptors(left);
        assert_eq!(length(&[1_000; 20]), Ok(20_000), "{left}");
    }
    assert_eq!(pool.pids(), pids);
    println!("it works");
}

/// Has too few descriptors for memory for a while.
fn sends_when_there_are_descriptors_again() {
    let pool = tasks::pool(1);
    tasks::succeeds_with(&pool, 100);
    let (gate, pids) = (harness::Gate::new(), pool.pids());
    // The last one is for looking whether the task is at the gate.
    let mut files = leave_descriptors(1);
    let running = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    files.extend(leave_descriptors(0));
    let waiting = pool.submit(tasks::Length("x".repeat(1_000_000)));
    // To open the gate would take a descriptor, but one that is gone keeps nobody, either.
    let away = gate.path().with_extension("away");
    fs::rename(gate.path(), &away).expect("a gate that is gone");
    // What runs comes to no harm; only then the worker is ended, for want of anything to do.
    assert_eq!(running.result(), Ok(pids[0]));
    harness::eventually("a change of workers", || pool.stats().respawned > 0);
    drop(files);
    fs::rename(away, gate.path()).expect("the gate again");
    assert_eq!(waiting.result(), Ok(1_000_000));
    tasks::succeeds_with(&pool, 20);
    println!("it works");
}

/// How many descriptors are left for the first pool, and whether a panic ends the program.
pub(crate) const LEFT: &str = "PROCESSION_TEST_LEFT";
pub(crate) const ABORTS: &str = "PROCESSION_TEST_ABORTS";

/// Has too few descriptors for a while, from before the first pool of the program on.
fn is_short_at_its_first_handshake() {
    if env::var_os(ABORTS).is_some() {
        // As in a program with `panic = "abort"`: a panic cannot be caught.
        std::panic::set_hook(Box::new(|info| {
            eprintln!("{info}");
            process::abort()
        }));
    }
    let left = env::var(LEFT).expect("a number").parse().expect("a number");
    let files = leave_descriptors(left);
    match tasks::quiet().workers(2).build() {
        Ok(pool) => {
            let early = pool.submit(tasks::Pid());
            thread::sleep(std::time::Duration::from_millis(300));
            drop(files);
            early.result().expect("an output, when the shortage has passed");
            tasks::succeeds_with(&pool, 20);
        }
        Err(error) => {
            let is_typed = matches!(
                error,
                procession::PoolError::System(_) | procession::PoolError::NoRunDir(_)
            );
            assert!(is_typed, "{error:?}");
            drop(files);
        }
    }
    let later = tasks::quiet().workers(2).build().expect("a pool");
    tasks::succeeds_with(&later, 20);
    later.shutdown(Shutdown::Wait);
    println!("it works");
}

/// Never has a descriptor again: then no worker can be given what is large, nor started. A shortage
/// is given half a minute to pass.
fn gives_up_without_descriptors() {
    let pool = tasks::pool(1);
    tasks::succeeds_with(&pool, 1);
    let _files = leave_descriptors(0);
    let lost = pool.submit(tasks::Length("x".repeat(1_000_000))).result();
    let is_broken = matches!(
        &lost,
        Err(TaskError::PoolBroken(procession::PoolError::CannotStart { cause, .. }))
            if cause.contains("descriptors")
    );
    assert!(is_broken, "{lost:?}");
    println!("it works");
}

/// Has enough descriptors to start a worker, and never as many as it takes to greet it as well.
fn never_has_enough_for_a_handshake() {
    let _files = leave_descriptors(18);
    // One that waits for ever would never say so.
    thread::spawn(|| {
        thread::sleep(std::time::Duration::from_secs(70));
        eprintln!("the pool goes on trying");
        process::abort()
    });
    let pool = tasks::quiet().workers(1).build().expect("a pool");
    let lost = pool.submit(tasks::Pid()).result();
    let is_broken = matches!(
        &lost,
        Err(TaskError::PoolBroken(procession::PoolError::CannotStart { cause, .. }))
            if cause.contains("cannot start the handshake with a worker: too few file descriptors are free")
    );
    assert!(is_broken, "{lost:?}");
    println!("it works");
}

/// Says which workers it has, then ends in the midst of work.
fn ends(ending: &str) {
    // Of the three processes, these stand by.
    let spares = if ending == "waits with spares" { 2 } else { 0 };
    let builder = tasks::quiet().workers(3 - spares).spares(spares);
    let pool = match ending {
        "waits with a template" => builder.preload(tasks::Echo(String::new())),
        _ => builder,
    };
    let pool = pool.build().expect("a pool");
    let gate = harness::Gate::new();
    let _running = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    harness::eventually("all workers and spares", || {
        pool.pids().len() == 3 && pool.stats().spares == spares
    });
    if ending == "waits for what it started" {
        let told = gate.path().join("told");
        let sleep = ["sleep", "600"].map(str::to_owned).to_vec();
        let _running = pool.submit(Children(sleep, told.clone(), None));
        harness::eventually("something started", || told.exists());
        println!("{}", fs::read_to_string(told).expect("a process id"));
    }
    for pid in pool.pids() {
        println!("{pid}");
    }
    if ignores_interrupts() {
        end_when_interrupted();
    }
    println!("ready");
    match ending {
        "returns" => {}
        "panics" => panic!("{ON_PURPOSE}"),
        "exits" => process::exit(3),
        "forgets its pool" => std::mem::forget::<ProcessPool>(pool),
        _ => loop {
            thread::park();
        },
    }
}

/// Whether SIGINT was ignored when this program was started: shells do that to programs in the
/// background.
fn ignores_interrupts() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 << (signal_hook::consts::SIGINT - 1) != 0)
}

/// SIGINT ends this program as it does by default.
fn end_when_interrupted() {
    let signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT]);
    let mut signals = signals.expect("a handler");
    thread::spawn(move || {
        for signal in signals.forever() {
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    });
}

/// This program with a part to play.
pub(crate) fn command(part: &str) -> Command {
    command_of(&env::current_exe().expect("a path"), part)
}

pub(crate) fn command_of(program: &Path, part: &str) -> Command {
    let mut command = Command::new(program);
    command.env(VARIABLE, part);
    command
}

/// The same, started by a shell that prepares the ground with `before`.
pub(crate) fn command_after(before: &str, part: &str) -> Command {
    let mut command = Command::new("sh");
    let program = env::current_exe().expect("a path");
    command.arg("-c").arg(format!("{before}; exec \"$0\"")).arg(program).env(VARIABLE, part);
    command
}

/// Runs the command, which is to say that it works.
#[track_caller]
pub(crate) fn assert_works(command: &mut Command) {
    let Output { status, stdout, stderr } = command.output().expect("a program to run");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(
        status.success() && stdout == "it works\n",
        "the program ended with {status} and said:\n{stdout}{stderr}"
    );
}

/// Starts the command, which is to say which workers it has.
pub(crate) fn start_and_hear_workers(command: &mut Command) -> (Child, Vec<u32>) {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("a program to run");
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let lines = stdout.lines().map(|line| line.expect("a line"));
    let pids = lines.take_while(|line| line != "ready").map(|line| line.parse().expect("a pid"));
    let pids = pids.collect();
    (child, pids)
}
