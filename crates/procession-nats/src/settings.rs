//! [`ConnectSettings`]: how coordinators and agents reach the servers.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::ConnectOptions;
use nkeys::KeyPair;
use sha2::{Digest, Sha256};

use crate::names::is_token;

/// How coordinators and agents reach the NATS servers, and how these keep what they get.
///
/// ```
/// use std::time::Duration;
///
/// use procession_nats::ConnectSettings;
///
/// let settings = ConnectSettings::new("nats://10.0.0.5:4222,nats://10.0.0.6:4222")
///     .prefix("staging")
///     .keep_records(Duration::from_secs(24 * 3600))
///     .nkey("/etc/procession/agent.nk")
///     .root_certificate("/etc/procession/ca.pem")
///     .client_certificate("/etc/procession/agent.pem", "/etc/procession/agent.key")
///     .inbox_prefix("_INBOX_agents")
///     .replicas(3);
/// ```
#[derive(Clone)]
#[must_use]
pub struct ConnectSettings {
    pub(crate) url: String,
    pub(crate) prefix: String,
    pub(crate) replicas: usize,
    pub(crate) keep_records: Duration,
    credentials: Option<PathBuf>,
    nkey: Option<PathBuf>,
    root: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    inbox: Option<String>,
}

impl ConnectSettings {
    /// The addresses of the servers, separated by commas; `tls://` for encrypted connections.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "procession".to_owned(),
            replicas: 1,
            keep_records: Duration::from_secs(7 * 24 * 3600),
            credentials: None,
            nkey: None,
            root: None,
            certificate: None,
            inbox: None,
        }
    }

    /// What the names of streams and subjects begin with. Coordinators and agents with the same prefix work
    /// together. Default: `procession`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The number of servers that keep a copy, where the streams are made. Default: 1.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// How long records are kept at most, where the streams are made. A task that is not done in this time
    /// is lost, with an error. Default: 7 days.
    pub fn keep_records(mut self, duration: Duration) -> Self {
        self.keep_records = duration;
        self
    }

    /// A file of credentials (`.creds`, a JWT and its seed).
    ///
    /// ```
    /// # use procession_nats::ConnectSettings;
    /// let settings = ConnectSettings::new("tls://nats.example.org").credentials("/etc/procession/agent.creds");
    /// ```
    pub fn credentials(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials = Some(path.into());
        self
    }

    /// A file with the seed of an nkey (`SU…`).
    pub fn nkey(mut self, path: impl Into<PathBuf>) -> Self {
        self.nkey = Some(path.into());
        self
    }

    /// A file with the certificate (PEM) of the authority that has signed those of the servers. Connections
    /// that are not encrypted are refused then. Default: the authorities that the system trusts.
    pub fn root_certificate(mut self, path: impl Into<PathBuf>) -> Self {
        self.root = Some(path.into());
        self
    }

    /// The files (PEM) with the certificate by which the servers know this program, and with its private key.
    /// Connections that are not encrypted are refused then.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.certificate = Some((certificate.into(), key.into()));
        self
    }

    /// What the subjects begin with to which servers send their answers. A server that lets each user hear
    /// only answers of its own needs another one for each user. Default: `_INBOX`.
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox = Some(prefix.into());
        self
    }

    /// The addresses, without the passwords that may be in them.
    pub(crate) fn shown_url(&self) -> String {
        let without = |url: &str| match url.rsplit_once('@') {
            Some((before, host)) => {
                let scheme = before.find("://").map_or("", |at| &before[..at + 3]);
                format!("{scheme}…@{host}")
            }
            None => url.to_owned(),
        };
        self.url.split(',').map(|url| without(url.trim())).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn options(&self) -> io::Result<ConnectOptions> {
        let mut options = ConnectOptions::new().name("procession");
        if let Some(path) = &self.credentials {
            let read = options.credentials(&read(path)?);
            options = read.map_err(|error| of_file(path, &error))?;
        }
        if let Some(path) = &self.nkey {
            let seed = read(path)?.trim().to_owned();
            KeyPair::from_seed(&seed).map_err(|error| of_file(path, &error))?;
            options = options.nkey(seed);
        }
        if let Some(path) = &self.root {
            // It is read when a connection is made, where an error would not name it.
            read(path)?;
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        if let Some((certificate, key)) = &self.certificate {
            read(certificate)?;
            read(key)?;
            let (certificate, key) = (certificate.clone(), key.clone());
            options = options.add_client_certificate(certificate, key).require_tls(true);
        }
        if let Some(prefix) = &self.inbox {
            let is_fine = prefix.split('.').all(is_token);
            if !is_fine {
                let why =
                    format!("the inbox prefix {prefix:?} is not of a-z, A-Z, 0-9, _, -, and dots");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            options = options.custom_inbox_prefix(prefix);
        }
        Ok(options)
    }
}

impl fmt::Debug for ConnectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectSettings")
            .field("url", &self.shown_url())
            .field("prefix", &self.prefix)
            .field("replicas", &self.replicas)
            .field("credentials", &self.credentials)
            .field("nkey", &self.nkey)
            .field("root", &self.root)
            .field("certificate", &self.certificate)
            .field("inbox", &self.inbox)
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path).map_err(|error| of_file(path, &error))
}

fn of_file(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// The name of this build: a hash of the program's file, in hexadecimal. Coordinators and agents that are
/// the same file have the same.
pub(crate) fn own_build() -> io::Result<String> {
    let mut file = File::open(std::env::current_exe()?)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    Ok(hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// The name of this host.
pub(crate) fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_addresses_are_not_shown() {
        let shown = |url: &str| ConnectSettings::new(url).shown_url();
        assert_eq!(shown("nats://me:se@cret@h:4222, tls://i"), "nats://…@h:4222,tls://i");
        assert_eq!(shown("me:secret@h"), "…@h");
        let debug = format!("{:?}", ConnectSettings::new("nats://me:secret@h"));
        assert!(!debug.contains("secret"), "{debug}");
    }
}
