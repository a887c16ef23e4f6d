//! Spans and events of tasks, which run in workers, at the subscriber of this program. Their parent is the span
//! in which the task was submitted.
//!
//! ```text
//! cargo run -p procession --example traced
//! ```

use procession::{Executor, ProcessPool, Shutdown};
use tracing::{info, info_span, warn};

#[procession::task]
#[tracing::instrument(name = "halve")] // the attribute `task` gives the function another name
fn halve(number: u64) -> u64 {
    if !number.is_multiple_of(2) {
        warn!(rest = number % 2, "not even");
    }
    number / 2
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `main` runs in this process alone, so the workers have no subscriber of their own.
    tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .init();
    let pool = ProcessPool::builder().workers(1).tracing(tracing::Level::INFO).build()?;
    for request in [6, 7] {
        let span = info_span!("request", request);
        let future = span.in_scope(|| pool.submit(halve(request)));
        let half = future.result()?;
        span.in_scope(|| info!(half, "answered"));
    }
    pool.shutdown(Shutdown::Wait);
    Ok(())
}
