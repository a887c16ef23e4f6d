//! The tasks of the demonstrations, which report what they do.

use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use serde::{Deserialize, Serialize};

use crate::files::outcome::DownloadStatus;
use crate::files::task::Download;
use procession::{Context, Failure, Task};

/// Downloads a flag and reports its code when it is saved; returns the code, as in the book.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ShowFlag {
    pub download: Download,
    /// Whether the task crashes its process.
    pub crashes: bool,
}

impl Task for ShowFlag {
    const NAME: &'static str = "demo.show_flag";
    type Output = String;

    fn run(self, context: &Context) -> Result<String, Failure> {
        if self.crashes {
            thread::sleep(Duration::from_millis(100));
            segfault();
        }
        let outcome = self.download.run(context)?;
        match outcome.status {
            DownloadStatus::Ok => {
                context.say(&outcome.code);
                Ok(outcome.code)
            }
            DownloadStatus::NotFound => Err(Failure::msg("not found")),
            DownloadStatus::Error | DownloadStatus::NotDone => {
                Err(Failure::msg(outcome.error.unwrap_or_default()))
            }
        }
    }
}

/// Ends this process as a read from address 0 would.
fn segfault() -> ! {
    // No core dump.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // The first signal runs the handler of the standard library, which restores the default action.
    loop {
        let _ = kill_process(getpid(), Signal::SEGV);
    }
}

/// Sleeps for `n` seconds, divided by `speed`; returns `10 * n`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Loiter {
    pub n: u32,
    pub speed: u32,
}

impl Task for Loiter {
    const NAME: &'static str = "demo.loiter";
    type Output = u32;

    fn run(self, context: &Context) -> Result<u32, Failure> {
        let Self { n, speed } = self;
        let tabs = "\t".repeat(n as usize);
        context.say(stamped(format_args!("{tabs}loiter({n}): doing nothing for {n}s...")));
        thread::sleep(Duration::from_secs(n.into()) / speed);
        context.say(stamped(format_args!("{tabs}loiter({n}): done.")));
        Ok(n * 10)
    }
}

/// A line with the time of day before it.
pub(super) fn stamped(line: std::fmt::Arguments<'_>) -> String {
    format!("{} {line}", jiff::Zoned::now().strftime("[%H:%M:%S]"))
}
