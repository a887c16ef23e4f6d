//! The end of a run: the report, the last lines of the log, the exit code.

use std::time::Duration;

use procession_journal as journal;
use procession_journal::{Level, LogEvent, RunReport};

use super::collector::Collector;
use super::prepared_run::{ExecutedRun, PreparedRun};
use crate::cli::exit::ProgramExit;
use crate::cli::format::{self, shell_word};
use crate::cli::run_log::LogPolicy;
use crate::cli::{run_log, stderr, stdout, usage};
use crate::files::outcome::OutcomeCounts;
use crate::files::report::RunSummary;
use crate::files::save;

/// How a run ended.
struct RunEnd {
    exit: ProgramExit,
    /// The reason, where the exit code alone does not say it.
    why: Option<String>,
    /// Whether the reader of standard output has closed it.
    is_unread: bool,
    counts: OutcomeCounts,
}

/// Reports the outcomes and ends the executor, the log and the dashboard.
pub(super) fn conclude(executed: ExecutedRun) -> anyhow::Result<ProgramExit> {
    let ExecutedRun { run, executor, mut collector, failure, elapsed } = executed;
    let is_abandoned = collector.is_incomplete();
    collector.cancel_the_rest();
    let RunEnd { exit, why, is_unread, counts } = report(&run, collector, failure, elapsed);
    executor.end(is_abandoned);
    // Workers that were killed may have left incomplete files.
    save::sweep(&run.settings.dest);
    run_log::record(
        Level::Info,
        LogEvent::Summary {
            report: RunReport {
                ok: counts.ok,
                not_found: counts.not_found,
                error: counts.error,
                not_done: Some(counts.not_done),
                unchanged: counts.unchanged,
                elapsed_s: RunSummary::seconds(elapsed),
                exit_code: exit as i32,
            },
            usage: usage::of_this_program(),
        },
    );
    run_log::end(exit as u8, why);
    if let Some(dashboard) = run.dashboard {
        dashboard.end();
    }
    if let Some(dir) = run.log_dir.filter(|_| !is_unread) {
        stderr::print(format_args!("logs: {}", dir.display()));
    }
    Ok(exit)
}

fn report(
    run: &PreparedRun,
    collector: Collector,
    failure: Option<String>,
    elapsed: Duration,
) -> RunEnd {
    let Collector { mut display, interrupted_by, pool_error, has_failed_too_often, .. } = collector;
    let counts = display.counts();
    let has_lost_lines = journal::current().is_some_and(|log| log.lost() > 0);
    let has_log = run.log_dir.is_some() && !has_lost_lines;
    let summary = RunSummary {
        server: run.settings.source.server_name(),
        dest: run.settings.dest.display().to_string(),
        mode: run.parallelism.mode().to_owned(),
        workers: run.parallelism.workers(),
        connections: run.parallelism.connections(),
        counts,
        total: counts.total(),
        elapsed_s: RunSummary::seconds(elapsed),
        interrupted: interrupted_by.is_some(),
        errors: display.causes(),
        next: next_command(run.settings.source.command(), &run.settings.logs, counts)
            .filter(|_| has_log),
    };
    display.end(&summary, elapsed);
    let (is_unread, unwritten) = match display.write_error() {
        None => (false, None),
        Some(error) => match stdout::failure(error) {
            // The reader has closed the pipe on purpose.
            None => (true, None),
            Some(why) => (false, Some(format!("cannot write the report: {why}"))),
        },
    };
    let unlogged = display.end_joblog();
    drop(display);
    if has_failed_too_often {
        let errors = format::count(counts.error, "error");
        stderr::print(format_args!("coordinator: stopped after {errors}"));
    }
    if counts.not_found == counts.total() {
        tell_of_base(run);
    }
    let why = pool_error.map(|error| error.to_string()).or(failure).or(unwritten).or(unlogged);
    if let Some(why) = &why {
        stderr::print(format_args!("coordinator: {why}"));
    }
    if !is_unread && counts.error + counts.not_done > 0 && summary.next.is_none() {
        let log = match run.log_dir {
            Some(_) if has_lost_lines => "the log of this run could not be written whole",
            _ => "no log was kept of this run",
        };
        stderr::print(format_args!("coordinator: {log}, so no other can go on with it"));
    }
    let is_missing = run.settings.fail_on_missing && counts.not_found > 0;
    let exit = match interrupted_by {
        Some(exit) => exit,
        None if why.is_some() => ProgramExit::CouldNotWork,
        None if is_unread => ProgramExit::ClosedPipe,
        None if counts.error > 0 || is_missing => ProgramExit::SomeErrors,
        None => ProgramExit::Success,
    };
    let why = why.or_else(|| is_unread.then(|| stdout::ClosedPipe.to_string()));
    RunEnd { exit, why, is_unread, counts }
}

/// Nothing was found below a base URL that was typed. It may be that of one flag, or of the whole server.
fn tell_of_base(run: &PreparedRun) {
    let source = &run.settings.source;
    if let (Some(base), Some(first)) = (source.typed_base(), source.planned().first()) {
        stderr::print(format_args!(
            "coordinator: none of them is there, the first as {}: is {base} the right base URL?",
            first.url
        ));
    }
}

/// The command that continues the run, if something is left to do.
fn next_command(program: &str, logs: &LogPolicy, counts: OutcomeCounts) -> Option<String> {
    let mut command = program.to_owned();
    for (number, option) in [(counts.not_done, " --resume"), (counts.error, " --retry-failed")] {
        if number > 0 {
            command += option;
        }
    }
    if let LogPolicy::Required(dir) = logs {
        command += &format!(" --log-dir {}", shell_word(&dir.display().to_string()));
    }
    (counts.not_done + counts.error > 0).then_some(command)
}
