//! Runs the kept task that the variable `PROCESSION_REPLAY` of this process's environment names.

use std::env;
use std::fmt::Display;
use std::io::{self, Write};
use std::process;

use super::{KeptTask, ReplayError, ReplayedOutput};
use crate::registry::Registry;
use procession_os::threads::{self, ThreadSpec};

/// The file.
const FILE: &str = "PROCESSION_REPLAY";
/// Not empty: although another build has kept it.
const FORCE: &str = "PROCESSION_REPLAY_FORCE";

/// If the environment names a kept task, runs it and exits: with 0 after an output, which is printed, with 1
/// if the task ran and has none, with 2 if it did not run.
pub(crate) fn replay_if_asked(registry: &Registry) {
    let Some(path) = env::var_os(FILE).filter(|path| !path.is_empty()) else { return };
    let is_forced = env::var_os(FORCE).is_some_and(|value| !value.is_empty());
    let replayed = KeptTask::read(&path).and_then(|kept| {
        let kept = if is_forced { kept.despite_build() } else { kept };
        announce(&kept);
        run(kept, registry)
    });
    match replayed {
        Ok(output) => {
            // One write; a closed standard output is no reason to fail.
            let _ = io::stdout().write_all(format!("{output}\n").as_bytes());
            process::exit(0);
        }
        Err(error) => {
            say(&error);
            let has_run = matches!(error, ReplayError::Task(_) | ReplayError::Initializer(_));
            process::exit(if has_run { 1 } else { 2 });
        }
    }
}

fn announce(kept: &KeptTask) {
    let (task, cause, pid, path) = (kept.task(), kept.cause(), kept.pid(), kept.path().display());
    say(&format_args!("replaying task {task:?} of {path}, which {cause} in process {pid}"));
    let here = env::current_dir().unwrap_or_default();
    let there = &kept.header.directory;
    if here.to_string_lossy() != *there {
        say(&format_args!("its worker ran in the directory {there}"));
    }
}

/// Runs it as its worker did: with its limits, and on a thread with the same stack.
fn run(kept: KeptTask, registry: &Registry) -> Result<ReplayedOutput, ReplayError> {
    let system = |reason: String| ReplayError::System { reason };
    let (stack, limits) = (kept.header.stack, kept.header.limits);
    // The first thread of a worker is its main thread, if that has the stack for it.
    let runs_here = kept.header.threads == 1
        && !threads::main_has_less_than(stack.unwrap_or(threads::USUAL_STACK));
    limits.impose().map_err(system)?;
    if runs_here {
        return kept.replay(registry);
    }
    let registry = registry.clone();
    let thread = ThreadSpec::new("replay").with_stack(stack);
    let thread = thread.start_with_retries(move || kept.replay(&registry));
    let thread = thread.map_err(|error| system(threads::refusal(&error)))?;
    // The panics of a task are its errors.
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn say(line: &dyn Display) {
    let _ = io::stderr().write_all(format!("procession: {line}\n").as_bytes());
}
