//! Starts the embedded flag server that a site names.

use std::io;

use crate::flag_server::{FlagServer, ServerKind};
use crate::flags::site::Site;

/// Starts the server on a free port; `None` if the site is a server that runs elsewhere.
pub(super) fn start(site: &Site, seed: u64) -> io::Result<Option<FlagServer>> {
    let kind = match site {
        Site::Local => ServerKind::Local,
        Site::Delay => ServerKind::Delay,
        Site::Error => ServerKind::Error,
        Site::Remote | Site::Custom(_) => return Ok(None),
    };
    FlagServer::builder(kind).seed(seed).start().map(Some)
}
