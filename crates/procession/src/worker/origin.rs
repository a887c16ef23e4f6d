//! How a process knows that it was started as a worker.
//!
//! | sign | missing if |
//! |---|---|
//! | the invitation in the environment | a wrapper cleared the environment |
//! | the socket as standard input | a wrapper replaced the standard input |
//! | the mark, a descriptor ([`procession_os::mark`]) | a wrapper closed it; other systems than Linux |
//! | the environment of the leader of its process group | a wrapper made it a session of its own |
//! | a mark that an ancestor still has open, and the process that it says was started | the wrapper ended, or is in another namespace of process ids |
//!
//! A worker needs the invitation and the socket to serve. Each other sign is enough to refuse a pool in
//! this process: its workers would be started by the same wrapper and start workers again, without end.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::{env, fs, process};

use rustix::process::Pid;

use super::{LOST_ENVIRONMENT, LOST_INPUT};
use crate::transport::{self, HandshakeMessage, Invitation, Marking, StartFile};
use procession_os as os;
use procession_os::mark::FoundMark;

/// Set when this process begins to serve.
static IS_SERVING: AtomicBool = AtomicBool::new(false);

pub(super) fn note_that_it_serves() {
    IS_SERVING.store(true, Ordering::Release);
}

/// Whether this process serves as a worker.
pub(crate) fn is_serving() -> bool {
    IS_SERVING.load(Ordering::Acquire)
}

/// Whether this process was started as a worker and has not served. If so, it sends the coordinator a
/// message that says why.
///
/// The search takes about as long as the start of a worker. How a process was started does not change, so the search
/// is not repeated in a process that was found to be no worker. A forked copy of that process searches for itself.
pub(crate) fn was_asked_in_vain() -> bool {
    static NO_WORKER: AtomicU32 = AtomicU32::new(0);
    if is_serving() || NO_WORKER.load(Ordering::Relaxed) == process::id() {
        return false;
    }
    let was_asked = has_signs_of_a_worker();
    if !was_asked {
        NO_WORKER.store(process::id(), Ordering::Relaxed);
    }
    was_asked
}

fn has_signs_of_a_worker() -> bool {
    if let Some(invitation) = invitation() {
        if has_the_socket(&invitation) {
            HandshakeMessage::NotServing.send_to(io::stdin().as_fd());
            return true;
        }
        // A wrapper passed on the environment, but not the standard input. A program that a task
        // starts has the environment, too; by then the start of the worker is over.
        if is_awaited(&invitation) {
            tell_by_words(LOST_INPUT);
            return true;
        }
    }
    if let Some(marking) = marking() {
        tell_that_the_environment_is_lost(marking);
        return true;
    }
    if has_the_socket_of_an_ancestor() {
        HandshakeMessage::NoEnvironment.send_to(io::stdin().as_fd());
        return true;
    }
    if let Some(invitation) = invitation_of_the_leader() {
        match has_the_socket(&invitation) {
            true => drop(HandshakeMessage::NoEnvironment.send_to(io::stdin().as_fd())),
            false => tell_by_words(LOST_ENVIRONMENT),
        }
        return true;
    }
    if let Some(mark) = mark_of_an_ancestor() {
        mark.say(LOST_ENVIRONMENT);
        return true;
    }
    false
}

/// Says one of the texts that the coordinator looks for in what its workers say.
fn tell_by_words(words: &str) {
    let _ = writeln!(io::stderr(), "worker: {words}");
    tell_by_mark(words);
}

/// The same without the standard error, which a wrapper may have replaced, too. If the wrapper has also closed the mark,
/// the mark of the coordinator is used.
fn tell_by_mark(words: &str) {
    if let Some(mark) = os::mark::inherited().or_else(mark_of_an_ancestor) {
        mark.say(words);
    }
}

pub(super) fn tell_that_the_input_is_lost() {
    tell_by_mark(LOST_INPUT);
}

pub(super) fn tell_that_the_environment_is_lost(marking: Marking) {
    if transport::identity(io::stdin().as_fd()) == Some(marking.input) {
        HandshakeMessage::NoEnvironment.send_to(io::stdin().as_fd());
    } else {
        tell_by_words(LOST_ENVIRONMENT);
    }
}

/// The invitation in the environment of this process. Its standard input may have been replaced.
pub(super) fn own_invitation() -> Option<Invitation> {
    invitation().filter(|it| has_the_socket(it) || has_lost_the_socket(it))
}

fn invitation() -> Option<Invitation> {
    // Not `from_str`: each kind of reader is compiled for the whole invitation.
    serde_json::from_slice(env::var(Invitation::VARIABLE).ok()?.as_bytes()).ok()
}

/// Whether standard input is the socket that the coordinator gave to its worker. A process that a
/// task starts inherits the environment, but not that.
pub(super) fn has_the_socket(invitation: &Invitation) -> bool {
    transport::identity(io::stdin().as_fd()) == Some(invitation.input)
}

/// Whether this process has the environment of a worker for which the coordinator still waits, but another standard
/// input.
fn has_lost_the_socket(invitation: &Invitation) -> bool {
    !has_the_socket(invitation)
        && (is_child_of(invitation.coordinator) || is_child_of_a_wrapper(invitation.coordinator))
        && is_awaited(invitation)
}

/// Whether the coordinator still waits for the worker of this invitation.
fn is_awaited(invitation: &Invitation) -> bool {
    let directory = Path::new(&invitation.awaited);
    directory.is_absolute() && StartFile::is_awaited(directory, invitation.start)
}

/// The mark of a worker that this process has inherited. A worker closes it before it runs tasks; a
/// helper of the same program that it starts before that inherits it.
pub(super) fn marking() -> Option<Marking> {
    let marking = Marking::parse(&os::mark::inherited()?.text)?;
    (is_child_of(marking.coordinator) || parent_is_another_program()).then_some(marking)
}

/// Whether standard input is one end of a socket pair of the pool's type, made by an ancestor of this
/// process.
fn has_the_socket_of_an_ancestor() -> bool {
    let Some(maker) = transport::maker(io::stdin().as_fd()) else { return false };
    ancestors().any(|parent| parent == maker)
}

/// The parent, its parent and so on.
fn ancestors() -> impl Iterator<Item = Pid> {
    const FURTHEST: usize = 8;
    let parents = std::iter::successors(rustix::process::getppid(), |pid| Stat::of(*pid)?.parent());
    parents.take(FURTHEST)
}

/// The mark of a worker from which this process descends, or which it is, if the coordinator still waits for
/// that worker.
fn mark_of_an_ancestor() -> Option<FoundMark> {
    let mut child = rustix::process::getpid();
    let is_from_a_wrapper = parent_is_another_program();
    ancestors().find_map(|parent| {
        let started = u32::try_from(child.as_raw_nonzero().get()).ok();
        let is_it = is_from_a_wrapper || child == rustix::process::getpid();
        child = parent;
        let marks = match is_it && may_await_workers(parent) {
            true => os::mark::of_process(parent),
            false => Vec::new(),
        };
        marks.into_iter().find(|mark| started.is_some() && mark.started() == started)
    })
}

/// Whether the process may be a coordinator: its supervisor thread lives as long as its workers. Most ancestors, such as
/// shells, have one thread, and to look at what each has open takes longer than the rest of the search.
fn may_await_workers(process: Pid) -> bool {
    Stat::of(process).and_then(|stat| stat.threads()).is_none_or(|threads| threads > 1)
}

/// The invitation in the environment of the leader of this process group, if the coordinator still waits
/// for its worker. A worker is such a leader, and so is a wrapper that was started in its place.
fn invitation_of_the_leader() -> Option<Invitation> {
    // Not `getpgrp`: in a namespace of process ids the leader may be outside, and the group is 0.
    let leader = Stat::of(rustix::process::getpid())?.group()?;
    if leader == rustix::process::getpid() || !parent_is_another_program() {
        return None;
    }
    let variables = fs::read(proc_of(leader).join("environ")).ok()?;
    let variables = variables.split(|byte| *byte == 0);
    let prefix = format!("{}=", Invitation::VARIABLE);
    let value = variables.into_iter().find_map(|it| it.strip_prefix(prefix.as_bytes()))?;
    let invitation: Invitation = serde_json::from_slice(value).ok()?;
    let started = u32::try_from(Stat::of(leader)?.parent()?.as_raw_nonzero().get()).ok()?;
    (started == invitation.coordinator && is_awaited(&invitation)).then_some(invitation)
}

/// Whether the parent is a child of the coordinator and another program than this one: if it were
/// the same, the worker itself would have started this process, as a helper with other duties.
fn is_child_of_a_wrapper(coordinator: u32) -> bool {
    let Some(parent) = rustix::process::getppid() else { return false };
    let grandparent = Stat::of(parent).and_then(|stat| stat.parent());
    let is_it = |pid: Pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(coordinator);
    grandparent.is_some_and(is_it) && parent_is_another_program()
}

/// If the program of the parent cannot be read, the parent belongs to another user.
fn parent_is_another_program() -> bool {
    let program = |of: &Path| fs::read_link(of.join("exe")).ok();
    let parent = rustix::process::getppid().and_then(|parent| program(&proc_of(parent)));
    parent.is_none() || parent != program(Path::new("/proc/self"))
}

pub(super) fn is_child_of(coordinator: u32) -> bool {
    rustix::process::getppid()
        .is_some_and(|parent| u32::try_from(parent.as_raw_nonzero().get()) == Ok(coordinator))
}

fn proc_of(pid: Pid) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string())
}

/// The content of `/proc/PID/stat`.
struct Stat(Vec<u8>);

impl Stat {
    fn of(pid: Pid) -> Option<Self> {
        /// More than the file can have: 52 numbers and a short name.
        const LONGEST: usize = 2048;
        let mut text = vec![0; LONGEST];
        let length = File::open(proc_of(pid).join("stat")).ok()?.read(&mut text).ok()?;
        text.truncate(length);
        Some(Self(text))
    }

    /// The parent; `None` if it is outside of this namespace of process ids.
    fn parent(&self) -> Option<Pid> {
        self.process_id(1)
    }

    /// The leader of the process group; `None` if it is outside.
    fn group(&self) -> Option<Pid> {
        self.process_id(2)
    }

    fn threads(&self) -> Option<u64> {
        self.field(17)?.parse().ok()
    }

    fn process_id(&self, field: usize) -> Option<Pid> {
        Pid::from_raw(self.field(field)?.parse().ok()?)
    }

    /// A field, counted from 0 behind the name of the program.
    fn field(&self, field: usize) -> Option<&str> {
        // The name may contain anything.
        let behind_the_name = self.0.rsplit(|byte| *byte == b')').next()?;
        let fields = OsStr::from_bytes(behind_the_name).to_str()?;
        fields.split_whitespace().nth(field)
    }
}

/// Tells the coordinator that this process is not the one that it started.
pub(super) fn tell_that_it_is_wrapped() {
    HandshakeMessage::Wrapped { pid: process::id() }.send_to(io::stdin().as_fd());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    fn the_parent_of_a_process_is_found_whatever_its_name() {
        let own = Stat::of(rustix::process::getpid()).expect("this process");
        assert_eq!(own.parent(), rustix::process::getppid());
        let odd = Stat(b"7 (a) b) (c) S 42 0 7".to_vec());
        assert_eq!((odd.parent(), odd.group()), (Pid::from_raw(42), None));
    }

    #[test]
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    fn a_process_with_a_second_thread_may_be_a_coordinator() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || ended.recv());
            let own = Stat::of(rustix::process::getpid()).expect("this process");
            assert!(own.threads() > Some(1) && may_await_workers(rustix::process::getpid()));
            drop(end);
        });
        let mut one = std::process::Command::new("sleep").arg("60").spawn().expect("a process");
        let pid = Pid::from_raw(one.id().cast_signed()).expect("a process id");
        let may = may_await_workers(pid);
        one.kill().expect("it lives");
        one.wait().expect("it was killed");
        assert!(!may);
    }

    #[test]
    fn a_process_that_was_not_started_as_a_worker_is_none() {
        assert!(!was_asked_in_vain());
        assert!(own_invitation().is_none() && marking().is_none());
    }
}
