//! 17.1.3: futures, printed when they are created and when they are done.

use std::thread;
use std::time::{Duration, Instant};

use super::args::{FuturesArgs, WORKERS};
use super::tasks::ShowFlag;
use super::{FlagSource, executor, exit, print};
use crate::cli::exit::ProgramExit;
use crate::flags::codes::POP20;
use procession::{Executor, FutureState, Shutdown, as_completed};

/// How long to wait after a submission until the task runs: with and without a free worker.
const START_TIMEOUTS: [Duration; 2] = [Duration::from_secs(5), Duration::from_millis(5)];

pub(super) fn run(args: FuturesArgs) -> anyhow::Result<ProgramExit> {
    let FuturesArgs { mode, workers, server, dest } = args;
    let workers = workers.unwrap_or(WORKERS);
    let source = FlagSource::open(&server, dest, workers)?;
    let mut codes = [POP20[0], POP20[1], POP20[2], POP20[3], POP20[4]];
    codes.sort_unstable();

    let pool = executor(mode, workers, |said| print(format!("{}  ", said.line)))?;
    let began = Instant::now();
    let mut busy = 0;
    let futures = codes.map(|code| {
        let future = pool.submit(ShowFlag { download: source.download(code), crashes: false });
        let submitted = Instant::now();
        let timeout = START_TIMEOUTS[usize::from(busy >= workers)];
        busy += 1;
        while future.state() == FutureState::Pending && submitted.elapsed() < timeout {
            thread::yield_now();
        }
        print(format!("Scheduled for {code}: {future:?}\n"));
        future
    });
    let mut errors = 0;
    for future in as_completed(futures) {
        let state = format!("{future:?}");
        match future.result() {
            Ok(code) => print(format!("{state} result: {code:?}\n")),
            Err(error) => {
                errors += 1;
                print(format!("{state} error: {error}\n"));
            }
        }
    }
    let elapsed = began.elapsed().as_secs_f64();
    print(format!("\n{} flags downloaded in {elapsed:.2}s\n", codes.len() - errors));
    pool.shutdown(Shutdown::Wait);
    Ok(exit(errors))
}
