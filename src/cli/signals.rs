//! Ctrl-C and SIGTERM, as news for whoever runs a job. What they mean is the job's to say; only
//! somebody who insists is obeyed at once.

use std::io;
use std::process;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Exit;

/// So many signals mean that even a job's quickest end is too slow. Workers notice by themselves.
const INSISTING: usize = 3;

/// Calls `arrived` for each signal, with the exit status that it asks for, from a thread that
/// lives as long as the process.
pub(super) fn watch(mut arrived: impl FnMut(Exit) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for (earlier, signal) in signals.forever().enumerate() {
            let exit = if signal == SIGTERM { Exit::Terminated } else { Exit::Interrupted };
            if earlier + 1 >= INSISTING {
                process::exit(exit as i32);
            }
            arrived(exit);
        }
    })?;
    Ok(())
}
