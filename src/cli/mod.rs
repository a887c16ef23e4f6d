//! The two programs: from the command line to a job, and from its results to the terminal.
//!
//! ```text
//!   args ──(resume)──► settings ──► download ──► executor ──► Outcome ──► display ─► stdout, stderr
//!   as typed           as resolved     ▲               └─► journal ─► logs, timeline, dashboard
//!                                   signals
//! ```
//!
//! One file a subcommand. Nothing below this room knows the terminal or exit codes.

mod args;
mod bar;
mod bench;
mod compare;
mod contradictions;
mod dashboard;
mod demo;
mod display;
mod download;
mod feeder;
mod hands;
mod job_control;
mod logs;
mod machine;
mod mistyped;
mod muster;
mod resume;
mod run_log;
mod serve;
mod settings;
mod signals;
mod stderr;
mod stdout;
mod table;
mod tally;
mod timeline;
mod unfinished;
mod usage;
mod which_run;
mod words;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, CommandFactory, FromArgMatches};
use clap_complete::Shell;

use self::args::{Args, Command};
use self::resume::Work;
use crate::flags::task::Download;
use crate::workload;
use procession::worker::{self, Asked};
use procession::{ProcessPool, Registry};
use procession_os as os;

/// The build of these programs: both must be of the same.
const BUILD: &str = env!("PROCESSION_BUILD");

/// The settings that all process pools of the programs have in common.
fn pool() -> procession::Builder {
    ProcessPool::builder().build_id(BUILD)
}

/// How a program ended, as its caller reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
    /// Every code was answered.
    Answered = 0,
    /// Some ended in an error.
    SomeErrors = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The job could not be done at all.
    CouldNotWork = 3,
    /// Ended by the SIGHUP of a terminal that is gone.
    HungUp = 129,
    /// Ended by Ctrl-C.
    Interrupted = 130,
    /// Ended by SIGQUIT.
    Quit = 131,
    /// The reader of standard output closed it before all was written.
    ClosedPipe = 141,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The `coordinator` program.
pub fn coordinator() -> ExitCode {
    survive_limits_of_file_sizes();
    os::memory::reserve_little();
    if let Some(asked) = worker::asked() {
        return serve_coordinator(asked);
    }
    run()
        .unwrap_or_else(|error| {
            if error.is::<stdout::ClosedPipe>() {
                return Exit::ClosedPipe;
            }
            let why = format!("{error:#}");
            stderr::say(format_args!("coordinator: {why}"));
            run_log::end(Exit::CouldNotWork as u8, Some(why));
            Exit::CouldNotWork
        })
        .into()
}

fn run() -> anyhow::Result<Exit> {
    let parsed = Args::command()
        .try_get_matches()
        .and_then(|matches| Ok((Args::from_arg_matches(&matches)?, matches)));
    let (Args { command, download }, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(told) => return refusal(told),
    };
    // Without these threads everything works but Ctrl-Z, and orphans of a container stay.
    let _ = job_control::watch();
    match command {
        None => run_download(download, &matches),
        Some(Command::Serve(serve)) => serve::run(&serve),
        Some(Command::Bench(bench)) => bench::run(&bench),
        Some(Command::Logs(logs)) => logs::run(&logs),
        Some(Command::Compare(compare)) => compare::run(*compare),
        Some(Command::Demo(demos)) => demo::run(demos.demo),
        Some(Command::Timeline(timeline)) => timeline::run(&timeline),
        Some(Command::Completions { shell }) => completions(shell),
    }
}

/// Shows what stands in the way of running anything: a usage error, on stderr, or the help or
/// the version, on stdout.
fn refusal(told: clap::Error) -> anyhow::Result<Exit> {
    if told.use_stderr() {
        let first = std::env::args().nth(1).unwrap_or_default();
        if told.kind() == clap::error::ErrorKind::UnknownArgument
            && let Some(command) = mistyped::meant(&first)
        {
            return usage_error(None, mistyped::hint(&first, &command));
        }
        let later = std::env::args().skip(2).find(|word| mistyped::is_command(word));
        if told.kind() == clap::error::ErrorKind::ArgumentConflict
            && let (false, Some(command)) = (mistyped::is_command(&first), later)
        {
            return usage_error(None, settings::UsageError::CommandComesFirst(command));
        }
        // A stderr that is gone cannot be told so.
        let _ = told.print();
        return Ok(Exit::Usage);
    }
    stdout::written(told.print())?;
    Ok(Exit::Answered)
}

/// A write beyond the limit of file sizes is an error like that of a full disk, and not the end of
/// the process. What has a handler here has none in the programs that are started.
fn survive_limits_of_file_sizes() {
    let handler = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
    // Without it the system ends the process with a signal, which is told.
    let _ = handler;
}

fn run_download(mut typed: args::Download, matches: &ArgMatches) -> anyhow::Result<Exit> {
    if let Some(word) = typed.which.cc.first()
        && let Some(command) = mistyped::meant(word)
    {
        return usage_error(None, mistyped::hint(word, &command));
    }
    match resume::complete(&mut typed, matches)? {
        Work::AsTyped => {}
        Work::Refused(why) => return usage_error(None, why),
        Work::Left(told) => stderr::say(format_args!("coordinator: {told}")),
        Work::Nothing(told, summary) => {
            stderr::say(format_args!("coordinator: {told}"));
            if typed.json {
                stdout::print(&(summary.line() + "\n"))?;
            }
            return Ok(Exit::Answered);
        }
    }
    settings::resolve(typed).map_or_else(|error| usage_error(None, error), download::run)
}

/// The `worker` program.
pub fn worker() -> ExitCode {
    survive_limits_of_file_sizes();
    os::memory::reserve_little();
    match worker::asked() {
        Some(asked) => serve_coordinator(asked),
        None => {
            stderr::say(format_args!(
                "worker: this is a worker process of procession. It takes its tasks from a \
                 coordinator, which starts it: run `coordinator --help`."
            ));
            Exit::Usage.into()
        }
    }
}

fn serve_coordinator(asked: Asked) -> ExitCode {
    run_log::begin_in_worker(asked.worker());
    let code = match asked.serve(registry()) {
        Ok(()) => 0,
        Err(error) => {
            stderr::say(format_args!("worker: {error}"));
            1
        }
    };
    run_log::end(code, None);
    ExitCode::from(code)
}

/// All that workers can do.
fn registry() -> Registry {
    let registry = Registry::new().build_id(BUILD).with::<Download>();
    demo::add_to(workload::add_to(bench::add_to(registry)))
}

fn completions(shell: Shell) -> anyhow::Result<Exit> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "coordinator", &mut script);
    let mut out = io::stdout().lock();
    stdout::written(out.write_all(&script).and_then(|()| out.flush()))?;
    Ok(Exit::Answered)
}

/// Tells what is wrong with the command line, and how that of this subcommand is used.
fn usage_error(subcommand: Option<&[&str]>, error: impl Display) -> anyhow::Result<Exit> {
    let kind = clap::error::ErrorKind::ValueValidation;
    let mut command = Args::command();
    // With this, a subcommand knows its full name.
    command.build();
    let command = subcommand.unwrap_or_default().iter().fold(&mut command, |command, name| {
        command.find_subcommand_mut(name).expect("a subcommand of that name")
    });
    let error = command.error(kind, error);
    // A stderr that is gone cannot be told so.
    let _ = error.print();
    Ok(Exit::Usage)
}
