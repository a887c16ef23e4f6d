//! [`new_nkey`]: a key by which the servers know a program.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nkeys::KeyPair;

/// Makes a key of a user. Its seed is written to a new file, which only the owner may read
/// ([`ConnectSettings::nkey`](crate::ConnectSettings::nkey)); its public part, which is returned, stands in the
/// configuration of the servers (`U…`).
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("agent.nk");
/// let public = procession_nats::new_nkey(&path)?;
/// assert!(public.starts_with('U'));
/// assert!(procession_nats::new_nkey(&path).is_err(), "no key is overwritten");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If the file is there, or cannot be written.
pub fn new_nkey(path: &Path) -> io::Result<String> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let pair = KeyPair::new_user();
    let seed = pair.seed().map_err(io::Error::other)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| writeln!(file, "{seed}")).map_err(named)?;
    Ok(pair.public_key())
}
