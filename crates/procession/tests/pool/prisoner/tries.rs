//! The attempts of `attempts.rs`, made at each level and without a sandbox.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::{fs, io};

use procession::{Allow, Executor, Exit, ProcessPool, Sandbox, TaskError};
use tempfile::TempDir;

use super::attempts::{Attempt, Targets, Try, of_each_level, of_strict, where_it_may_write};
use super::pool;
use crate::tasks::{quiet, succeeds_with};

/// What the attempts are made on. The process is ended with it.
struct World {
    dir: TempDir,
    secret: PathBuf,
    readable: PathBuf,
    socket: PathBuf,
    memory: PathBuf,
    received: UnixDatagram,
    victim: Child,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let (secret, readable, socket) = (path("secret"), path("readable"), path("socket"));
        for file in [&secret, &readable] {
            fs::write(file, "content").expect("a file");
        }
        // Not all file systems have attributes.
        let flags = rustix::fs::XattrFlags::empty();
        let _ = rustix::fs::setxattr(&secret, "user.secret", b"a secret", flags);
        let received = UnixDatagram::bind(&socket).expect("a socket");
        received.set_nonblocking(true).expect("a socket");
        let victim = Command::new("sleep").arg("300").stdin(Stdio::null()).spawn();
        let memory = format!("/dev/shm/procession-prisoner-{}", std::process::id()).into();
        let victim = victim.expect("a process");
        Self { dir, secret, readable, socket, memory, received, victim }
    }

    fn targets(&self) -> Targets<'_> {
        let Self { secret, readable, socket, memory, victim, .. } = self;
        Targets { secret, readable, socket, memory, victim: victim.id() }
    }

    fn is_unharmed(&mut self) -> bool {
        let arrived = self.received.recv(&mut [0; 8]);
        let files = fs::read_dir(self.dir.path()).expect("a directory").count();
        fs::read(&self.secret).is_ok_and(|text| text == b"content")
            && arrived.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            && files == 3
            && self.victim.try_wait().is_ok_and(|status| status.is_none())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.memory);
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

/// How an attempt ended: what the last call has returned, or the number of the error, negative.
fn outcome(pool: &ProcessPool, attempt: &Attempt) -> Result<i64, TaskError> {
    pool.submit(Try(attempt.steps.clone())).result()
}

/// Refused by a layer, before the system has looked at the arguments.
fn is_refused(attempt: &Attempt, outcome: &Result<i64, TaskError>) -> bool {
    let refusals = [libc::EPERM, libc::EACCES, libc::ENOSYS].map(|error| -i64::from(error));
    match outcome {
        Ok(number) if *number == -i64::from(libc::ENOTSUP) => attempt.is_absent,
        Ok(number) => refusals.contains(number),
        Err(TaskError::WorkerDied(death)) => death.exit == Exit::Signal(libc::SIGSYS),
        Err(_) => false,
    }
}

pub(super) fn no_attempt_succeeds_in_a_sandbox() {
    let mut world = World::new();
    let (strict, basic) = (Sandbox::strict(), Sandbox::basic());
    let mut open = Vec::new();
    let online = Sandbox::strict().allow(Allow::Network);
    for (level, sandbox) in [("strict", strict), ("basic", basic), ("online", online)] {
        let pool = pool(sandbox.read(&world.readable));
        let mut attempts = of_each_level(&world.targets());
        if level == "strict" {
            attempts.extend(of_strict(&world.targets()));
        }
        for attempt in &attempts {
            let outcome = outcome(&pool, attempt);
            let shown = outcome.as_ref().map_or_else(ToString::to_string, ToString::to_string);
            println!("{level}: {}: {shown}", attempt.name);
            if !is_refused(attempt, &outcome) {
                open.push(format!("{level}: {}: {shown}", attempt.name));
            }
        }
        succeeds_with(&pool, 20);
    }
    assert_eq!(open, Vec::<String>::new());
    assert!(world.is_unharmed());
}

/// What others open there would be another file, or one that runs with the rights of its owner.
pub(super) fn what_a_worker_leaves_where_it_may_write_is_no_trap() {
    let dir = tempfile::tempdir().expect("a directory");
    let pool = pool(Sandbox::strict().write(dir.path()));
    for (attempt, is_allowed) in where_it_may_write(dir.path()) {
        let outcome = outcome(&pool, &attempt);
        println!("{}: {outcome:?}", attempt.name);
        assert_eq!(
            outcome.as_ref().is_ok_and(|number| *number >= 0),
            is_allowed,
            "{}",
            attempt.name
        );
        assert!(is_allowed || is_refused(&attempt, &outcome), "{}: {outcome:?}", attempt.name);
    }
}

/// The test above would notice an attempt that succeeds.
pub(super) fn most_attempts_succeed_without_a_sandbox() {
    let mut closed = Vec::new();
    let number = World::new();
    let number =
        [of_each_level(&number.targets()), of_strict(&number.targets())].map(|all| all.len());
    for index in 0..number[0] + number[1] {
        // What one has changed is not there for the next.
        let world = World::new();
        let mut attempts = of_each_level(&world.targets());
        attempts.extend(of_strict(&world.targets()));
        let attempt = &attempts[index];
        if !attempt.is_open_without {
            continue;
        }
        let pool = quiet().workers(1).build().expect("a pool");
        let outcome = outcome(&pool, attempt);
        println!("{}: {outcome:?}", attempt.name);
        if !outcome.as_ref().is_ok_and(|number| *number >= 0) {
            closed.push(format!("{}: {outcome:?}", attempt.name));
        }
    }
    assert_eq!(closed, Vec::<String>::new());
}
