//! Starts the embedded flag server that a site names.

use crate::flag_server::{FlagServer, ServerKind, StartError};
use crate::flags::site::Site;

/// Starts the server on a free port; `None` if the site is a server that runs elsewhere.
pub(super) fn start(site: &Site, seed: u64) -> Result<Option<FlagServer>, StartError> {
    let kind = match site {
        Site::Local => ServerKind::Local,
        Site::Delay => ServerKind::Delay,
        Site::Error => ServerKind::Error,
        Site::Remote | Site::Custom(_) => return Ok(None),
    };
    FlagServer::builder(kind).seed(seed).start().map(Some)
}
