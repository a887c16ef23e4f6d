//! A template: a process that runs the preload task of a pool, and then copies itself for each worker. What the
//! task has loaded is in memory once, except for the pages that a worker writes to.
//!
//! ```text
//!   coordinator                                 template
//!     │ ◄─────────────────────────────── Hello ── │   serves: no longer awaited
//!     │ ── Preload{name}, its text ────────────► │   runs the task
//!     │ ◄───────────── Preloaded, CannotServe ── │
//!     │ ── Copy, streams, invitation, … ───────► │ ── copies itself ─► worker: goes on in `Asked::serve`
//!     │ ◄──────────── Copied{pid}, NotCopied ─── │
//! ```
//!
//! A worker is a child of the coordinator, not of the template, and does not notice its end.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::OwnedFd;
use std::process;
use std::sync::Arc;

use super::{ServeError, lifeline, take_stdin, unreachable};
use crate::progress_lines::LineSink;
use crate::registry::Registry;
use crate::stop_signal::StopSignal;
use crate::task::{Context, Locals, TaskId};
use crate::transport::{HandshakeMessage, Hello, Invitation, PROTOCOL, ReplyBuffer, Sent, Status};
use procession_os::copy::{self, Copied, CopyNote};

/// Returns in each worker, with its invitation and with the values of `Context::local`. The template ends when
/// the coordinator closes the socket.
pub(super) fn serve(
    invitation: &Invitation,
    registry: &Registry,
) -> Result<(Invitation, Arc<Locals>), ServeError> {
    procession_os::threads::name_this_thread(c"template");
    let socket = take_stdin()?;
    let (pid, build) = (process::id(), registry.build());
    let hello = HandshakeMessage::Hello(Hello { protocol: PROTOCOL, build, pid, server: None });
    if hello.send(&socket, &[]) != Sent::Yes {
        return Err(unreachable(invitation.coordinator, &"it hung up"));
    }
    let locals = Arc::<Locals>::default();
    loop {
        let answer = match lifeline::receive(&socket, invitation.coordinator) {
            Ok(Some((HandshakeMessage::Preload { name }, fds))) => {
                match preload(&name, fds, invitation.worker, registry, &locals) {
                    Ok(()) => HandshakeMessage::Preloaded,
                    Err(why) => HandshakeMessage::CannotServe(HandshakeMessage::reason(&why)),
                }
            }
            Ok(Some((HandshakeMessage::Copy, fds))) => match copy_this(fds) {
                Ok(Made::Worker(its_invitation)) => return Ok((*its_invitation, locals)),
                Ok(Made::Copy(pid)) => HandshakeMessage::Copied { pid },
                Err(error) => {
                    HandshakeMessage::NotCopied(HandshakeMessage::reason(&error.to_string()))
                }
            },
            Ok(Some((HandshakeMessage::Begin, _))) => continue,
            Ok(None) => process::exit(0),
            Ok(Some(_)) | Err(_) => {
                return Err(unreachable(invitation.coordinator, &"it sent garbage"));
            }
        };
        if answer.send(&socket, &[]) != Sent::Yes {
            return Err(unreachable(invitation.coordinator, &"it hung up"));
        }
    }
}

/// Runs the preload task.
fn preload(
    name: &str,
    fds: Vec<OwnedFd>,
    worker: usize,
    registry: &Registry,
    locals: &Arc<Locals>,
) -> Result<(), String> {
    let text = fds.into_iter().next().map(read_all);
    let text = text.unwrap_or_else(|| Err(io::ErrorKind::InvalidData.into()));
    let text = text.map_err(|error| format!("the preload task was not received: {error}"))?;
    let context = Context {
        task: TaskId(0),
        worker,
        attempt: 1,
        locals: Arc::clone(locals),
        lines: LineSink::default(),
        label: None,
        stop: StopSignal::Here { future: None, executor: Arc::default() },
    };
    let mut reply = ReplyBuffer::default();
    match registry.runner(name)?(&text, &context, &mut reply) {
        Status::Ok => {}
        status => {
            let error = reply.error(status).unwrap_or_default();
            return Err(format!("its preload failed: {error}"));
        }
    }
    match copy::threads_beside_this() {
        Ok(0) => Ok(()),
        Ok(1) => Err("its preload has started a thread, which a copy would not have".to_owned()),
        Ok(more) => {
            Err(format!("its preload has started {more} threads, which a copy would not have"))
        }
        Err(error) => Err(format!("cannot count the threads of this process: {error}")),
    }
}

const DIES: &str = "PROCESSION_TEST_TEMPLATE_DIES";

/// In which process [`copy_this`] returns.
enum Made {
    /// In the template, with the process id of the copy.
    Copy(u32),
    /// In the copy, with its invitation.
    Worker(Box<Invitation>),
}

fn copy_this(fds: Vec<OwnedFd>) -> io::Result<Made> {
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or(io::ErrorKind::InvalidData);
    let [input, output, error, invitation, note] = [next()?, next()?, next()?, next()?, next()?];
    let note = CopyNote::map(note)?;
    let invitation: Box<Invitation> = serde_json::from_slice(&read_all(invitation)?)?;
    match copy::copy([input, output, error], &note, fds.next())? {
        // For a test: as if it were killed at this moment.
        Copied::Original(_) if std::env::var_os(DIES).is_some() => process::abort(),
        Copied::Original(pid) => Ok(Made::Copy(pid.as_raw_nonzero().get().unsigned_abs())),
        Copied::Copy => Ok(Made::Worker(invitation)),
    }
}

fn read_all(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(file);
    file.rewind()?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
}
