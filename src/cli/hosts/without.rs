//! What is said in place of the feature `hosts`.

use std::sync::Arc;

use procession::Engine;

use super::{NatsArgs, RunsNow};
use crate::cli::bar::RunProgressBar;

pub(in crate::cli) fn missing() -> anyhow::Error {
    anyhow::anyhow!(
        "this program was built without its feature `hosts`, which brings about 70 crates: get it by \
         cargo install --path . --features hosts"
    )
}

/// Always an error: this program was built without the feature.
pub(in crate::cli) fn ensure_built() -> anyhow::Result<()> {
    Err(missing())
}

pub(in crate::cli) fn cluster(
    _: Option<&NatsArgs>,
    _: Option<&str>,
    _: u32,
    _: &RunProgressBar,
) -> anyhow::Result<(Arc<dyn Engine>, RunsNow)> {
    Err(missing())
}
