//! `coordinator hosts --logs`: the logs of the agents, fetched.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use procession_nats::{FetchedLogs, NoLogs, fetch_logs};

use super::NatsArgs;
use super::with_nats::needed_settings;
use crate::cli::exit::ProgramExit;
use crate::cli::{format, stdout};

/// How long to wait for the answer of each agent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes a directory for each agent that has logs, and prints a line for each agent. Fails if one has not answered.
pub(super) fn fetch(nats: &NatsArgs, dir: &Path) -> anyhow::Result<ProgramExit> {
    let (mut text, mut exit) = (String::new(), ProgramExit::Success);
    for FetchedLogs { host, logs, .. } in fetch_logs(&needed_settings(nats)?, PATIENCE)? {
        let name = format::printable(&host.host).into_owned();
        let logs = match logs {
            Ok(logs) => logs,
            Err(why) => {
                if why != NoLogs::NotKept {
                    exit = ProgramExit::SomeErrors;
                }
                writeln!(
                    text,
                    "{name} (pid {}): {}",
                    host.pid,
                    format::printable(&why.to_string())
                )?;
                continue;
            }
        };
        let dir = dir.join(dir_name(&host.host, &host.instance));
        logs.save(&dir)?;
        let files = format::count(logs.files.len() as u64, "file");
        write!(
            text,
            "{name} (pid {}): {files} in {}",
            host.pid,
            format::printable(&dir.to_string_lossy())
        )?;
        match logs.left_out {
            0 => text.push('\n'),
            left_out => {
                let others = format::count(left_out, "file");
                writeln!(
                    text,
                    "; not fetched: {others} (beyond 64 MiB or 10,000 files, or unreadable)"
                )?;
            }
        }
    }
    if text.is_empty() {
        text.push_str("0 agents\n");
    }
    stdout::print(&text)?;
    Ok(exit)
}

/// Any client that may write leases chooses these texts.
fn dir_name(host: &str, instance: &str) -> String {
    let plain = |text: &str, most| -> String {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        text.chars().map(|c| if is_fine(c) { c } else { '_' }).take(most).collect()
    };
    format!("{}-{}", plain(host, 64), plain(instance, 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_cannot_choose_a_directory_elsewhere() {
        assert_eq!(dir_name("web-1", "0123456789"), "web-1-01234567");
        assert_eq!(dir_name("../../etc", "/"), "______etc-_");
        assert_eq!(dir_name("", ""), "-");
    }
}
