//! 17.3: worker processes use all CPUs for CPU-bound work, and do not help downloads, which wait.

use std::time::Instant;

use super::args::CpuArgs;
use super::tasks::ShowFlag;
use super::{FlagSource, executor, exit, print, scratch, workers_in_words};
use crate::cli::exit::ProgramExit;
use crate::cli::options::Mode;
use crate::flags::codes::POP20;
use crate::flags::site::Site;
use crate::workload::WorkKind;
use procession::{Executor, Shutdown};

pub(super) fn run(args: CpuArgs) -> anyhow::Result<ProgramExit> {
    let CpuArgs { mode, workers, jobs } = args;
    let most = match mode {
        Mode::Sequential => 1,
        Mode::Threads | Mode::Processes | Mode::Hosts => workers.unwrap_or_else(num_cpus::get),
    };
    let mut errors = 0;
    for work in [WorkKind::Arcfour, WorkKind::Sha] {
        let size = work.usual_size();
        let s = if jobs == 1 { "" } else { "s" };
        print(format!("{jobs} job{s} for the CPU: {}\n", work.describe(size)));
        let mut alone = None;
        for workers in 1..=most {
            let pool = executor(mode, workers, |_| {})?;
            let (results, took) = work.run(&*pool, jobs, size);
            pool.shutdown(Shutdown::Wait);
            errors += results.iter().filter(|result| result.is_err()).count();
            let took = took.as_secs_f64();
            let times = match *alone.get_or_insert(took) / took {
                _ if workers == 1 => String::new(),
                times => format!(", {times:.2} times as fast"),
            };
            let who = workers_in_words(mode, workers);
            print(format!("  {who}, elapsed time: {took:.2}s{times}\n"));
        }
    }

    print(format!("{} flags that take half a second each, most of it waiting\n", POP20.len()));
    for (mode, workers) in [(Mode::Processes, num_cpus::get()), (Mode::Threads, POP20.len())] {
        let source = FlagSource::open(&Site::Delay, scratch()?, workers)?;
        let pool = executor(mode, workers, |_| {})?;
        let began = Instant::now();
        let tasks = POP20.map(|code| ShowFlag { download: source.download(code), crashes: false });
        errors += pool.map(tasks).filter(Result::is_err).count();
        let took = began.elapsed().as_secs_f64();
        pool.shutdown(Shutdown::Wait);
        let who = workers_in_words(mode, workers);
        print(format!("  {who}, elapsed time: {took:.2}s\n"));
    }
    Ok(exit(errors))
}
