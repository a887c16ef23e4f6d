//! 17.1.3: futures, looked at when they are made and when they are done.

use std::thread;
use std::time::{Duration, Instant};

use super::args::{Futures, WORKERS};
use super::tasks::ShowFlag;
use super::{Source, executor, exit, show};
use crate::cli::Exit;
use crate::flags::codes::POP20;
use procession::{Executor, Shutdown, State, as_completed};

/// How long a task may take from its submission until it runs, if there is a worker for it, and if
/// there is none.
const MOMENTS: [Duration; 2] = [Duration::from_secs(5), Duration::from_millis(5)];

pub(super) fn run(args: Futures) -> anyhow::Result<Exit> {
    let Futures { mode, workers, server, dest } = args;
    let workers = workers.unwrap_or(WORKERS);
    let source = Source::open(&server, dest, workers)?;
    let mut codes = [POP20[0], POP20[1], POP20[2], POP20[3], POP20[4]];
    codes.sort_unstable();

    let pool = executor(mode, workers, |said| show(format!("{}  ", said.line)))?;
    let began = Instant::now();
    let mut busy = 0;
    let futures = codes.map(|code| {
        let future = pool.submit(ShowFlag { download: source.download(code), crashes: false });
        let submitted = Instant::now();
        let moment = MOMENTS[usize::from(busy >= workers)];
        busy += 1;
        while future.state() == State::Pending && submitted.elapsed() < moment {
            thread::yield_now();
        }
        show(format!("Scheduled for {code}: {future:?}\n"));
        future
    });
    let mut errors = 0;
    for future in as_completed(futures) {
        let state = format!("{future:?}");
        match future.result() {
            Ok(code) => show(format!("{state} result: {code:?}\n")),
            Err(error) => {
                errors += 1;
                show(format!("{state} error: {error}\n"));
            }
        }
    }
    let elapsed = began.elapsed().as_secs_f64();
    show(format!("\n{} flags downloaded in {elapsed:.2}s\n", codes.len() - errors));
    pool.shutdown(Shutdown::Wait);
    Ok(exit(errors))
}
