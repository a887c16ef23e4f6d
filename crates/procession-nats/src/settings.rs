//! [`ConnectSettings`]: how coordinators and agents reach the servers.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use async_nats::ConnectOptions;
use sha2::{Digest, Sha256};

/// How coordinators and agents reach the NATS servers, and how these keep what they get.
///
/// ```
/// use procession_nats::ConnectSettings;
///
/// let settings = ConnectSettings::new("nats://10.0.0.5:4222,nats://10.0.0.6:4222")
///     .credentials("/etc/procession/agent.creds")
///     .replicas(3);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ConnectSettings {
    pub(crate) url: String,
    pub(crate) prefix: String,
    pub(crate) replicas: usize,
    pub(crate) keep_records: Duration,
    credentials: Option<PathBuf>,
    nkey: Option<PathBuf>,
    root: Option<PathBuf>,
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
    pub fn credentials(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials = Some(path.into());
        self
    }

    /// A file with the seed of an nkey (`SU…`).
    pub fn nkey(mut self, path: impl Into<PathBuf>) -> Self {
        self.nkey = Some(path.into());
        self
    }

    /// A file with the certificate (PEM) of the authority that has signed those of the servers.
    pub fn root_certificate(mut self, path: impl Into<PathBuf>) -> Self {
        self.root = Some(path.into());
        self
    }

    pub(crate) fn options(&self) -> io::Result<ConnectOptions> {
        let mut options = ConnectOptions::new().name("procession");
        if let Some(path) = &self.credentials {
            options = options.credentials(&std::fs::read_to_string(path)?)?;
        }
        if let Some(path) = &self.nkey {
            options = options.nkey(std::fs::read_to_string(path)?.trim().to_owned());
        }
        if let Some(path) = &self.root {
            options = options.add_root_certificates(path.clone());
        }
        Ok(options)
    }
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
