//! [`StartFailure`]: why a started process did not become a worker, and what that means for the next
//! start.

use std::fs;
use std::time::Duration;

use super::child::Ended;
use super::initializer::InitializerKind;
use super::inner::PoolInner;
use super::start_worker::is_shortage_message;
use super::worker_handle::KillReason;
use crate::error::{Exit, with_unit};
use crate::kept_task::KeptCause;
use crate::printable::printable;
use crate::scheduler::{NextStart, UnfitProgram};
use crate::transport::HandshakeMessage;
use crate::worker::{LOST_ENVIRONMENT, LOST_INPUT};

/// Why a started process did not become a worker.
pub(super) enum StartFailure {
    /// Wrong build or protocol: each process of this program fails the same way.
    Stranger(String),
    /// Its limits or its initializer prevent it: each process fails the same way.
    Uninitialized(String),
    /// A shortage of system resources, in the worker or in this process.
    Short(String),
    /// A layer of its sandbox is missing, as `layer: cause`.
    Unconfined(String),
    /// The process ended in its initializer or its preload.
    GoneInItsInitializer(InitializerKind),
    /// The program does not call `serve_if_asked`, or is a wrapper that starts another process.
    Misused(UnfitProgram, String),
    /// The process sent no message in this time, and there is another program.
    Silent(Duration),
    /// The process ended before its first message.
    Mute,
    /// The process ended after its first message and before it was ready.
    Gone,
    /// The operating system refused a call in this process.
    System(String),
}

impl StartFailure {
    pub(super) fn another_protocol() -> Self {
        Self::Stranger("it uses another version of the protocol".to_owned())
    }

    /// A panic in the handshake, by its message.
    pub(super) fn of_panic(message: &str) -> Self {
        let reason = format!("the handshake failed: {message}");
        match is_shortage_message(message) {
            true => Self::Short(reason),
            false => Self::System(reason),
        }
    }

    /// The cause of the failed start, as text, and when the next start is tried.
    pub(super) fn classify(
        self,
        pool: &PoolInner,
        rank: usize,
        (worker, pid): (usize, u32),
        kill_reason: Option<KillReason>,
        end: &Ended,
    ) -> (String, NextStart) {
        let (cause, next_start) = self.explain(pool, rank, (worker, pid), kill_reason, end);
        // The program has said a part of it.
        (printable(&cause).into_owned(), next_start)
    }

    fn explain(
        self,
        pool: &PoolInner,
        rank: usize,
        (worker, pid): (usize, u32),
        kill_reason: Option<KillReason>,
        end: &Ended,
    ) -> (String, NextStart) {
        let (exit, start_timeout) = (end.exit, pool.setup.scheduling.start_timeout);
        let longest = with_unit(start_timeout);
        let is_late = kill_reason == Some(KillReason::Late);
        let said = last_words(&end.last_output).map(|line| format!("; it last said: {line}"));
        let mut said = said.unwrap_or_default();
        if end.is_out_of_memory {
            said.push_str("; it had more memory than `Sandbox::total_memory` allows");
        }
        let (reason, next_start) = match self {
            // These do not depend on the program.
            Self::System(reason) => return (reason, NextStart::WithBackoff),
            Self::Short(reason) => {
                let limit = pool.setup.most_memory();
                let limit =
                    limit.map(|bytes| format!("; the pool limits its memory to {bytes} bytes"));
                return (reason + &limit.unwrap_or_default(), NextStart::AfterShortage);
            }
            Self::Unconfined(reason) => {
                return (reason, NextStart::Unfit(UnfitProgram::Unconfined));
            }
            Self::Uninitialized(reason) => return (format!("{reason}{said}"), NextStart::Never),
            Self::GoneInItsInitializer(kind) => {
                let reason = match is_late {
                    true => format!("its {kind} was not done within {longest}"),
                    false => format!("it ended with {exit} in its {kind}"),
                };
                let cause = match is_late {
                    true => KeptCause::TimedOut(start_timeout),
                    false => KeptCause::Died(exit),
                };
                let kept = pool.keep_initializer(kind, worker, pid, cause);
                let kept = kept.map(|kept| format!("; {kept}")).unwrap_or_default();
                return (format!("{reason}{said}{kept}"), NextStart::WithBackoff);
            }
            Self::Gone | Self::Mute | Self::Silent(_)
                if kill_reason == Some(KillReason::Unneeded) =>
            {
                return ("it was not needed any more".to_owned(), NextStart::WithBackoff);
            }
            // After these another program is tried, if there is one.
            Self::Stranger(reason) => (reason, NextStart::Never),
            Self::Misused(how, reason) => (format!("{reason}{said}"), NextStart::Unfit(how)),
            Self::Silent(time) => (
                format!("it had not reported after {}{said}", with_unit(time)),
                NextStart::WithBackoff,
            ),
            Self::Mute if is_late => silent_until_timeout(pool, rank, &said),
            Self::Mute => ended_silently(pool, rank, end, &said),
            Self::Gone if is_late => {
                (format!("it was not ready within {longest}{said}"), NextStart::WithBackoff)
            }
            Self::Gone => {
                (format!("it ended with {exit} before it was ready{said}"), NextStart::WithBackoff)
            }
        };
        let next_start = if pool.pass_over(rank, &reason) { NextStart::AtOnce } else { next_start };
        let path = pool.setup.programs.path(rank);
        // The link to the running program is resolved; other links are names that the user knows.
        let is_this = path.starts_with("/proc/self");
        let path = is_this.then(|| fs::read_link(path).ok()).flatten().unwrap_or(path.to_owned());
        (format!("worker program {}: {reason}", path.display()), next_start)
    }
}

/// A process sent no message until the start timeout.
fn silent_until_timeout(pool: &PoolInner, rank: usize, said: &str) -> (String, NextStart) {
    let start_timeout = pool.setup.scheduling.start_timeout;
    let reason = format!("it had not reported after {}", with_unit(start_timeout));
    // A program that served before is slow because the machine is busy.
    if pool.setup.programs.has_served(rank) {
        return (format!("{reason}{said}"), NextStart::WithBackoff);
    }
    // A slow start and a program that does not serve look the same.
    let hint = "it does not call procession::worker::serve_if_asked, or reads its standard input \
                before that, or needs a longer Builder::start_timeout";
    (format!("{reason}: {hint}{said}"), NextStart::Never)
}

/// A process ended before its first message.
fn ended_silently(pool: &PoolInner, rank: usize, end: &Ended, said: &str) -> (String, NextStart) {
    /// Exit code of a program that the loader could not load, for lack of memory.
    const NOT_LOADED: i32 = 127;
    let Ended { exit, last_output, .. } = end;
    if let Some(removed) = removed_by_wrapper(last_output) {
        return (format!("{removed}{said}"), NextStart::Unfit(UnfitProgram::Wrapper));
    }
    if last_output.iter().any(|line| HandshakeMessage::is_echo(line)) {
        let reason = format!("it printed what it was sent, and ended with {exit}");
        return (reason, NextStart::Unfit(UnfitProgram::NotServing));
    }
    let programs = &pool.setup.programs;
    let has_left = matches!(exit, Exit::Code(code) if *code != NOT_LOADED);
    // If this program's own executable does not serve, it ends with an exit code. Another worker program may
    // have failed before it served; one that exits with 0 without a message does not serve.
    let has_succeeded = *exit == Exit::Code(0);
    let does_not_serve =
        has_left && (programs.is_this(rank) || has_succeeded) && !programs.has_served(rank);
    let next_start = match does_not_serve {
        // Code before `serve_if_asked` may need threads or descriptors as well.
        true if is_shortage_message(said) => NextStart::AfterShortage,
        true => NextStart::Unfit(UnfitProgram::NotServing),
        false => NextStart::WithBackoff,
    };
    // A wrapper that starts the program and ends before the program has reported looks the same.
    let is_script = does_not_serve && has_succeeded && !programs.is_this(rank);
    let hint = if is_script { LEFT_BEHIND } else { "" };
    (format!("it ended with {exit} before it was ready{hint}{said}"), next_start)
}

const LEFT_BEHIND: &str = " (if it is a wrapper, it must start the program with `exec`, not in the background or in another session)";
pub(super) const CLEARED_ENVIRONMENT: &str = "it cleared the environment of the program";

/// What a wrapper removed, by the output of the worker.
fn removed_by_wrapper(output: &[String]) -> Option<&'static str> {
    let says = |words: &str| output.iter().any(|line| line.contains(words));
    if says(LOST_ENVIRONMENT) {
        return Some(CLEARED_ENVIRONMENT);
    }
    says(LOST_INPUT).then_some("it replaced the standard input of the program")
}

/// The last line that is not blank; or the message of a panic, without the notes and the backtrace
/// that follow it.
fn last_words(output: &[String]) -> Option<String> {
    const LONGEST: usize = 500;
    let is_message =
        |line: &&String| !(line.starts_with("note: ") || line.starts_with("stack backtrace:"));
    if let Some(at) = output.iter().rposition(|line| line.contains("panicked at ")) {
        let lines = output[at..].iter().take_while(is_message).map(|line| line.trim());
        let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        return Some(text.chars().take(LONGEST).collect());
    }
    output.iter().rfind(|line| !line.trim().is_empty() && is_message(line)).cloned()
}
