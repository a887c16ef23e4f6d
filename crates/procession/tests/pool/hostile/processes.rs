//! What hostile workers do by other processes, or as others.

#![allow(unsafe_code, reason = "an attacker uses what has no safe interface")]

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::time::Duration;
use std::{env, fs, ptr, thread};

use procession::Failure;
use rustix::net::SendFlags;

use super::attacks::{TAKE_IN, publish};
use crate::vandals::read_tail;

const VARIABLE: &str = "PROCESSION_TEST_HOSTILE";

/// The parts of processes that a hostile worker starts.
pub(crate) fn play_if_asked() {
    match env::var(VARIABLE).as_deref() {
        Ok("tracer") => trace_the_parent(false),
        Ok("tracer of all") => trace_the_parent(true),
        Ok("thief") => steal_output(),
        _ => {}
    }
}

/// Leaves a copy of this process behind, in a session of its own, which goes on writing; then dies.
pub(super) fn leave_behind(steals: bool) {
    if steals {
        let program = env::current_exe().expect("a path");
        let mut thief = Command::new(program);
        thief.env(VARIABLE, "thief").env_remove("PROCESSION_INVITATION").stdin(Stdio::null());
        let thief = thief.spawn().expect("a process");
        // Not waited for: it outlives this process.
        std::mem::forget(thief);
        thread::sleep(Duration::from_millis(100));
    }
    // SAFETY: the copy has one thread and goes on with what is in its memory; it takes no lock that
    // another thread could have held, except that of the allocator, which the system resets.
    if unsafe { libc::fork() } == 0 {
        // SAFETY: numbers alone.
        unsafe {
            libc::setsid();
            libc::prctl(libc::PR_SET_PDEATHSIG, 0);
        }
        let until = std::time::Instant::now() + LIFE_OF_A_DAEMON;
        while std::time::Instant::now() < until {
            publish_when_there_is_a_little_room();
            let _ = rustix::io::write(rustix::stdio::stdout(), b"still here\n");
        }
        // SAFETY: ends this copy without running anything that its memory registered.
        unsafe { libc::_exit(0) };
    }
    thread::sleep(Duration::from_millis(100));
    process::abort();
}

/// How long a daemon lives: it is not in the process group of its worker, so nothing ends it.
pub(crate) const LIFE_OF_A_DAEMON: Duration = Duration::from_secs(15);

/// Keeps unread records in the ring.
fn publish_when_there_is_a_little_room() {
    const REPLIES_HEAD: u64 = 3 * 64;
    for _ in 0..100 {
        if read_tail() - crate::vandals::read(REPLIES_HEAD) < 50 * 1024 {
            publish(TAKE_IN, 0, "");
        }
    }
}

/// Reads from the pipe that is the standard output, of which this process has only the writing end.
fn steal_output() -> ! {
    // SAFETY: numbers alone.
    unsafe { libc::setsid() };
    let mut pipe = File::open("/proc/self/fd/1").expect("the pipe");
    thread::spawn(|| {
        thread::sleep(LIFE_OF_A_DAEMON);
        process::exit(0);
    });
    loop {
        let _ = pipe.read(&mut [0; 16]);
    }
}

/// The file of [`Attack::Squat`]: a byte for each socket.
pub(crate) const SQUATTED: &str = "squatted";

/// Connects to the sockets where the coordinator expects its new workers.
pub(super) fn squat(sends: usize) -> ! {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
    let (mut held, mut tried) = (Vec::new(), HashSet::new());
    let dir = env::temp_dir();
    loop {
        let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        for path in sockets.lines().filter_map(|line| line.split_whitespace().nth(7)) {
            if !Path::new(path).starts_with(&dir) || !tried.insert(path.to_owned()) {
                continue;
            }
            let Ok(address) = SocketAddrUnix::new(path) else { continue };
            let Ok(end) = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None) else {
                continue;
            };
            if connect(&end, &address).is_ok() {
                let _ = rustix::net::send(&end, &vec![0xff; sends], SendFlags::NOSIGNAL);
                held.push(end);
                let notes = fs::File::options().create(true).append(true).open(dir.join(SQUATTED));
                let _ = notes.and_then(|mut notes| notes.write_all(b"x"));
            }
        }
    }
}

/// Another process attaches to this one as a debugger and keeps its status after its death.
pub(super) fn die_traced(all: bool) -> Result<(), Failure> {
    // SAFETY: numbers alone. Lets any process of the user trace this one, where the system asks for that.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
    let mut tracer = Command::new(env::current_exe()?);
    tracer
        .env(VARIABLE, if all { "tracer of all" } else { "tracer" })
        .env_remove("PROCESSION_INVITATION")
        .stdout(Stdio::piped());
    let mut tracer = tracer.spawn()?;
    let mut told = [0; 9];
    tracer.stdout.take().expect("a pipe").read_exact(&mut told)?;
    assert_eq!(&told, b"attached\n");
    process::abort()
}

fn trace_the_parent(all: bool) -> ! {
    let parent = rustix::process::getppid().expect("a parent").as_raw_nonzero().get();
    // SAFETY: numbers alone.
    unsafe {
        libc::setsid();
        let tasks = fs::read_dir(format!("/proc/{parent}/task")).expect("a process");
        for task in tasks.flatten() {
            let thread: i32 = task.file_name().to_string_lossy().parse().expect("a number");
            let null = ptr::null_mut::<libc::c_void>();
            if all || thread == parent {
                assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, thread, null, null), 0);
            }
        }
    }
    println!("attached");
    // Takes no status: the dead process stays with its tracer.
    let until = std::time::Instant::now() + LIFE_OF_A_DAEMON;
    while std::time::Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
        // SAFETY: numbers alone.
        unsafe { libc::ptrace(libc::PTRACE_CONT, parent, 0, libc::SIGABRT) };
    }
    process::exit(0)
}
