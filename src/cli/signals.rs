//! The signals that ask a program to end: Ctrl-C, SIGTERM, SIGQUIT, and the SIGHUP of a terminal
//! that is gone. What the first one means is the job's to say. The second one always ends the
//! program: that depends on no lock, channel or thread but the one that waits for signals here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use procession_os::threads::ThreadSpec;

use super::Exit;

/// Signals that come within this time after the first one are the same request: `timeout` signals
/// a program, then its group, and a terminal that is closed may send SIGHUP more than once.
pub(super) const BURST: Duration = Duration::from_millis(200);

/// How long a job may take to end after the second signal, which kills what runs and prints the
/// report. After that the process ends as it is; its workers notice by themselves.
const RESPITE: Duration = Duration::from_secs(3);

const ENDING: [(i32, Exit); 4] = [
    (SIGINT, Exit::Interrupted),
    (SIGTERM, Exit::Terminated),
    (SIGHUP, Exit::HungUp),
    (SIGQUIT, Exit::Quit),
];

/// Calls `arrived` for the first signal and for the second one, with the exit status that it asks
/// for, from a thread that lives as long as the process. `arrived` must not block.
pub(super) fn watch(mut arrived: impl FnMut(Exit) + Send + 'static) -> io::Result<()> {
    let heard: Vec<_> = ENDING
        .into_iter()
        .filter(|(signal, _)| *signal != SIGHUP || !is_hangup_ignored())
        .collect();
    let is_insisted = Arc::<AtomicBool>::default();
    for (signal, exit) in &heard {
        // The third signal ends the process in the handler itself.
        flag::register_conditional_shutdown(*signal, *exit as i32, Arc::clone(&is_insisted))?;
    }
    let mut signals = Signals::new(heard.iter().map(|(signal, _)| *signal))?;
    ThreadSpec::new("signals").start_with_retries(move || {
        let mut first: Option<(Instant, Exit)> = None;
        for signal in signals.forever() {
            let exit = ENDING.iter().find(|(ending, _)| *ending == signal);
            let exit = exit.map_or(Exit::Interrupted, |(_, exit)| *exit);
            match first {
                None => {
                    first = Some((Instant::now(), exit));
                    arrived(exit);
                }
                Some((at, _)) if at.elapsed() < BURST => {}
                Some((_, first)) => {
                    is_insisted.store(true, Ordering::Relaxed);
                    arrived(exit);
                    thread::sleep(RESPITE);
                    low_level::exit(first as i32);
                }
            }
        }
    })?;
    Ok(())
}

/// Whether whoever started this program wants it to outlive the terminal, as `nohup` does.
fn is_hangup_ignored() -> bool {
    // Other systems have no such file; there SIGHUP is always heard.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (SIGHUP - 1) & 1 == 1
}
