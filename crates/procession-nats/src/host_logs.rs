//! [`fetch_logs`]: the log files of the agents, on demand.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use procession::PoolError;
use procession_os::directories::create_all;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use crate::apart::ask;
use crate::host_lease::HostLease;
use crate::link::{ANSWER, Link, NoAnswer};
use crate::message::split;
use crate::names::is_token;
use crate::overview::read_in_time;
use crate::settings::ConnectSettings;

/// The maximum number of bytes that an agent sends; its newest files come first.
pub(crate) const MOST_BYTES: usize = 64 << 20;
/// The maximum number of files in an answer.
pub(crate) const MOST_FILES: usize = 10_000;
/// A bound for the length of the head of an answer.
const MOST_HEAD: usize = 4 << 20;

/// Asks an agent to put its logs into the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogsRequest {
    /// A random text, part of the name of the body.
    logs: String,
}

impl LogsRequest {
    /// The name of the body of the answer. `None` if that would not be a valid name.
    pub(crate) fn body_name(&self, instance: &str) -> Option<String> {
        is_token(&self.logs).then(|| format!("logs.{instance}.{}", self.logs))
    }
}

/// The head of an answer. The bytes of the files follow it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogsHead {
    /// If false, the agent keeps no logs.
    pub(crate) has_logs: bool,
    /// Why the logs cannot be read, if they cannot.
    pub(crate) why_none: Option<String>,
    /// Their paths below the directory of the logs, with `/`, and their lengths.
    pub(crate) files: Vec<(String, usize)>,
    /// The number of the others: there was no room for them, or they cannot be read.
    pub(crate) left_out: u64,
}

/// Whether it is a file name, or a directory and a file name, of letters, digits and `._-`, that leads to no directory
/// above and to no hidden file.
pub(crate) fn is_log_path(path: &str) -> bool {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_name = |name: &str| {
        (1..=200).contains(&name.len()) && !name.starts_with('.') && name.chars().all(is_fine)
    };
    path.split('/').count() <= 2 && path.split('/').all(is_name)
}

/// The log files of one agent. See the example of [`fetch_logs`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostLogs {
    /// Each file's path below the directory of the agent's logs, of one or two names of letters, digits, `.`, `_`
    /// and `-`; and its content. The newest first.
    pub files: Vec<(String, Bytes)>,
    /// The number of other files: there was no room for them in 64 MiB or 10,000 files, or the agent cannot read
    /// them.
    pub left_out: u64,
}

/// An agent that was asked, and its logs. See the example of [`fetch_logs`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedLogs {
    /// The agent, as its lease says.
    pub host: HostLease,
    /// Its logs, or why there are none.
    pub logs: Result<HostLogs, NoLogs>,
}

/// Why there are no logs of an agent. See the example of [`fetch_logs`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoLogs {
    /// The agent has no directory of logs: see [`AgentBuilder::logs`](crate::AgentBuilder::logs).
    #[error("the agent keeps no logs")]
    NotKept,
    /// The agent has not answered: it is stopped or cut off, or its version cannot send logs.
    #[error("the agent has not answered within {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// Any other cause, from the answer of the agent or of a server.
    #[error("{0}")]
    Failed(String),
}

impl HostLogs {
    /// Writes the files into this directory, which is created. Existing files are not replaced.
    ///
    /// # Errors
    ///
    /// If a file cannot be created, or exists already.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        create_all(dir)?;
        for (path, bytes) in &self.files {
            if let Some((run, _)) = path.split_once('/') {
                create_all(&dir.join(run))?;
            }
            let path = dir.join(path);
            let file = OpenOptions::new().write(true).create_new(true).open(&path);
            let saved = file.and_then(|mut file| file.write_all(bytes));
            saved.map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
        }
        Ok(())
    }

    fn read(answer: &Bytes) -> Result<Self, NoLogs> {
        let malformed = || NoLogs::Failed("the answer of the agent is malformed".to_owned());
        let (head, mut rest) = split::<LogsHead>(answer).ok_or_else(malformed)?;
        let LogsHead { has_logs, why_none, files, left_out } = head;
        if let Some(why) = why_none {
            return Err(NoLogs::Failed(why));
        }
        if !has_logs {
            return Err(NoLogs::NotKept);
        }
        let mut read = Vec::new();
        for (path, len) in files {
            // An agent may be taken over, and a file is written at this path.
            if !is_log_path(&path) || len > rest.len() {
                return Err(malformed());
            }
            read.push((path, rest.split_to(len)));
        }
        if rest.is_empty() { Ok(Self { files: read, left_out }) } else { Err(malformed()) }
    }
}

/// Fetches the log files of all agents. Waits for the answer of each agent for `patience` at most.
///
/// ```no_run
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use procession_nats::{ConnectSettings, fetch_logs};
///
/// let settings = ConnectSettings::new("nats://localhost");
/// for fetched in fetch_logs(&settings, Duration::from_secs(10))? {
///     match fetched.logs {
///         Ok(logs) => logs.save(format!("logs-of-{}", fetched.host.instance).as_ref())?,
///         Err(why) => eprintln!("{}: {why}", fetched.host.host),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`PoolError::Broker`], as [`overview`](crate::overview()). An agent that has no logs, or does not answer, is no error
/// here: its entry in the list says so.
pub fn fetch_logs(
    settings: &ConnectSettings,
    patience: Duration,
) -> Result<Vec<FetchedLogs>, PoolError> {
    ask(settings, async |link| {
        let mut all = Vec::new();
        for host in read_in_time(link).await?.hosts {
            let logs = fetch(link, &host.instance, patience).await;
            all.push(FetchedLogs { host, logs });
        }
        Ok(all)
    })
}

async fn fetch(link: &Link, instance: &str, patience: Duration) -> Result<HostLogs, NoLogs> {
    let failed = |NoAnswer(why)| NoLogs::Failed(why);
    let request = LogsRequest { logs: uuid::Uuid::new_v4().simple().to_string() };
    let name = request.body_name(instance).expect("the name of an answer");
    let message = serde_json::to_vec(&request).expect("text is always encodable");
    let sent = link.client.publish(link.names.control(instance), message.into()).await;
    sent.map_err(|error| NoLogs::Failed(error.to_string()))?;
    let begin = Instant::now();
    while begin.elapsed() < patience {
        if let Some(body) = link.find_body(&name, MOST_BYTES + MOST_HEAD).await.map_err(failed)? {
            // If this fails, the server removes it with old records.
            let _ = timeout(ANSWER, link.remove_body(&name)).await;
            return HostLogs::read(&body.into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(NoLogs::NoAnswer(patience))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::join;

    fn answer(files: &[(&str, usize)], bytes: &[u8]) -> Result<HostLogs, NoLogs> {
        let files = files.iter().map(|(path, len)| ((*path).to_owned(), *len)).collect();
        let head = LogsHead { has_logs: true, files, ..LogsHead::default() };
        HostLogs::read(&join(&head, [bytes]).into())
    }

    #[test]
    fn files_of_an_answer_are_saved_below_the_directory_and_nowhere_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let logs = answer(&[("run/a.jsonl", 3), ("b", 0)], b"abc").expect("logs");
        logs.save(&dir.path().join("new")).expect("saved");
        assert_eq!(std::fs::read(dir.path().join("new/run/a.jsonl")).expect("a file"), b"abc");
        assert!(logs.save(&dir.path().join("new")).is_err(), "nothing is replaced");
        for path in ["../x", "/x", "a/../x", "a//x", ".x", "a/b/c", "", "a\0", "a\nb", "~"] {
            assert!(matches!(answer(&[(path, 0)], b""), Err(NoLogs::Failed(_))), "{path:?}");
        }
        for (len, bytes) in [(4, "abc"), (2, "abc"), (usize::MAX, "abc")] {
            assert!(answer(&[("a", len)], bytes.as_bytes()).is_err(), "{len} of {bytes}");
        }
    }
}
