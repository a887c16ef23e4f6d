//! The signals that end a program: SIGINT (Ctrl-C), SIGTERM, SIGQUIT and SIGHUP. The job decides what
//! the first signal means. The second always ends the program, and depends on no lock, channel or
//! thread but the signals thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use procession_os::signals::{note_from_now, was_noted};
use procession_os::threads::ThreadSpec;

use super::exit::ProgramExit;

/// Signals within this time after the first one are the same request: `timeout` signals a program,
/// then its group, and a terminal that is closed may send SIGHUP more than once.
pub(super) const BURST: Duration = Duration::from_millis(200);

/// How long a job may take to end after the second signal, to kill its workers and print the report.
/// After that the process exits; its workers end by themselves.
const FORCED_END_TIMEOUT: Duration = Duration::from_secs(3);

const ENDING: [(i32, ProgramExit); 4] = [
    (SIGINT, ProgramExit::Interrupted),
    (SIGTERM, ProgramExit::Terminated),
    (SIGHUP, ProgramExit::HungUp),
    (SIGQUIT, ProgramExit::Quit),
];

/// Registers these signals. One that came before its handler was there is sent again; if the handler got it as well, it
/// may come twice.
pub(super) fn register(signals: &[i32]) -> io::Result<Signals> {
    signals.iter().for_each(|signal| note_from_now(*signal));
    let registered = Signals::new(signals)?;
    let mut noted = signals.iter().filter(|signal| was_noted(**signal));
    noted.try_for_each(|signal| low_level::raise(*signal))?;
    Ok(registered)
}

/// Calls `arrived` for the first and for the second signal, with the exit code of the signal, from a
/// thread that lives as long as the process. `arrived` must not block.
pub(super) fn watch(arrived: impl FnMut(ProgramExit) + Send + 'static) -> io::Result<()> {
    watch_boxed(Box::new(arrived))
}

/// The same, compiled once for all kinds of `arrived`.
fn watch_boxed(mut arrived: Box<dyn FnMut(ProgramExit) + Send>) -> io::Result<()> {
    let heard: Vec<_> = ENDING
        .into_iter()
        .filter(|(signal, _)| *signal != SIGHUP || !is_hangup_ignored())
        .collect();
    let numbers: Vec<_> = heard.iter().map(|(signal, _)| *signal).collect();
    // Before the handlers below, which alone would swallow a signal that comes now. If one comes twice, both count as
    // one request: see BURST.
    let mut signals = register(&numbers)?;
    let is_insisted = Arc::<AtomicBool>::default();
    for (signal, exit) in &heard {
        // The third signal ends the process in the handler itself.
        flag::register_conditional_shutdown(*signal, *exit as i32, Arc::clone(&is_insisted))?;
    }
    ThreadSpec::new("signals").start_with_retries(move || {
        let mut first: Option<(Instant, ProgramExit)> = None;
        for signal in signals.forever() {
            let exit = ENDING.iter().find(|(ending, _)| *ending == signal);
            let exit = exit.map_or(ProgramExit::Interrupted, |(_, exit)| *exit);
            match first {
                None => {
                    first = Some((Instant::now(), exit));
                    arrived(exit);
                }
                Some((at, _)) if at.elapsed() < BURST => {}
                Some((_, first)) => {
                    arrived(exit);
                    // The handler of this second signal may not have looked yet. And what comes within this
                    // time is the same request.
                    thread::sleep(BURST);
                    is_insisted.store(true, Ordering::Relaxed);
                    thread::sleep(FORCED_END_TIMEOUT - BURST);
                    low_level::exit(first as i32);
                }
            }
        }
    })?;
    Ok(())
}

/// Whether SIGHUP was ignored at the start of the program, as `nohup` sets it.
fn is_hangup_ignored() -> bool {
    // Other systems have no such file; there SIGHUP is always handled.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (SIGHUP - 1) & 1 == 1
}
