//! `Debug` of [`Builder`]: the settings that are values.

use std::fmt;

use super::Builder;

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, timeout, grace, retries, recycling, limits, max_pending, .. } = self;
        f.debug_struct("Builder")
            .field("workers", workers)
            .field("timeout", timeout)
            .field("grace", grace)
            .field("retries", retries)
            .field("recycling", recycling)
            .field("limits", limits)
            .field("max_pending", max_pending)
            .finish_non_exhaustive()
    }
}
