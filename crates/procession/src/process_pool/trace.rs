//! [`PoolEvent`]s as events of the crate `tracing`, with the target `procession`.
//!
//! ```text
//!   INFO  worker started  worker pid          INFO   spare promoted      worker pid replaces
//!   INFO  worker recycled worker pid reason   WARN   task is tried again  task fault attempt pause_ms
//!   INFO  worker exited   worker pid exit …   ERROR  task timed out       task after_ms
//!   ERROR worker died     worker pid exit …   TRACE  task handed over     task worker pid attempt
//! ```
//!
//! Without the feature `tracing` all of this compiles to nothing.

use super::PoolEvent;
#[cfg(feature = "tracing")]
use super::ResourceUsage;
#[cfg(feature = "tracing")]
use crate::error::Exit;

/// Whether a subscriber may want events of a pool.
pub(super) fn is_on() -> bool {
    #[cfg(feature = "tracing")]
    return tracing::enabled!(target: "procession", tracing::Level::ERROR);
    #[cfg(not(feature = "tracing"))]
    false
}

/// Whether a subscriber wants an event for each task.
pub(super) fn follows_tasks() -> bool {
    #[cfg(feature = "tracing")]
    return tracing::enabled!(target: "procession", tracing::Level::TRACE);
    #[cfg(not(feature = "tracing"))]
    false
}

/// Passes an event to the subscriber.
#[cfg(feature = "tracing")]
pub(super) fn emit(event: &PoolEvent) {
    use tracing::{error, info, trace, warn};

    match event {
        PoolEvent::WorkerStarted { worker, pid } => {
            info!(target: "procession", worker, pid, "worker started");
        }
        PoolEvent::SparePromoted { worker, pid, replaces } => {
            info!(target: "procession", worker, pid, replaces, "spare promoted");
        }
        PoolEvent::WorkerNotStarted { worker, pid, reason, was_needed: true } => {
            warn!(target: "procession", worker, pid, reason, "worker not started");
        }
        PoolEvent::WorkerNotStarted { worker, pid, reason, was_needed: false } => {
            info!(target: "procession", worker, pid, reason, "worker not started");
        }
        PoolEvent::WorkerExited { worker, pid, exit, usage, is_regular } => {
            worker_exited(*worker, *pid, *exit, *usage, *is_regular);
        }
        PoolEvent::WorkerWrittenOff { worker, pid, reason } => {
            error!(target: "procession", worker, pid, reason, "worker written off");
        }
        PoolEvent::WorkerNarrowed { worker, pid, threads, wanted, reason } => {
            warn!(target: "procession", worker, pid, threads, wanted, reason, "worker narrowed");
        }
        PoolEvent::WorkerRecycled { worker, pid, reason } => {
            info!(target: "procession", worker, pid, %reason, "worker recycled");
        }
        PoolEvent::WorkerUnfit { worker, pid, reason } => {
            warn!(target: "procession", worker, pid, reason, "worker unfit");
        }
        PoolEvent::WorkerDelayed { worker, reason } => {
            warn!(target: "procession", worker, reason, "worker delayed");
        }
        PoolEvent::TaskStarted { task, worker, pid, attempt } => {
            trace!(target: "procession", task = task.0, worker, pid, attempt, "task handed over");
        }
        PoolEvent::TaskRetried { task, fault, attempt, pause } => {
            let pause_ms = pause.as_secs_f64() * 1e3;
            warn!(target: "procession", task = task.0, ?fault, attempt, pause_ms, "task is tried again");
        }
        PoolEvent::TaskTimedOut { task, after } => {
            let after_ms = after.as_secs_f64() * 1e3;
            error!(target: "procession", task = task.0, after_ms, "task timed out");
        }
        PoolEvent::InputKept { task, worker, pid, input } => match input.failure() {
            None => info!(target: "procession", task = task.0, worker, pid, "{input}"),
            Some(_) => warn!(target: "procession", task = task.0, worker, pid, "{input}"),
        },
        PoolEvent::TemplateStarted { pid } => {
            info!(target: "procession", pid, "template started");
        }
        PoolEvent::TemplateExited { pid, exit } => {
            info!(target: "procession", pid, %exit, "template exited");
        }
        PoolEvent::ProgramPassedOver { program, reason } => {
            let program = program.display();
            warn!(target: "procession", %program, reason, "worker program passed over");
        }
    }
}

#[cfg(feature = "tracing")]
fn worker_exited(worker: usize, pid: u32, exit: Exit, usage: ResourceUsage, is_regular: bool) {
    use tracing::{error, info};

    let cpu_ms = usage.cpu.as_secs_f64() * 1e3;
    let peak_memory = usage.peak_memory;
    if is_regular {
        info!(target: "procession", worker, pid, %exit, cpu_ms, peak_memory, "worker exited");
    } else {
        error!(target: "procession", worker, pid, %exit, cpu_ms, peak_memory, "worker died");
    }
}

#[cfg(not(feature = "tracing"))]
pub(super) fn emit(_: &PoolEvent) {}
