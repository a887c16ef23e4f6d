//! The two programs: from the command line to a job, and from its results to the terminal.
//!
//! ```text
//!   args ─► a subcommand: one module with its arguments and `run`
//!           download, serve, bench, logs, timeline, compare, demo, agent, hosts, completions, man
//!
//!   leaves  exit, options, value, contradiction, usage_error: what commands have in common
//!           stdout, stderr, format, prose, table, bar: what they print
//!           run_log: what a run records; run_selection: which run's log is read
//! ```
//!
//! Only this directory uses the terminal and exit codes.

mod agent;
mod args;
mod background_load;
mod bar;
mod bench;
mod compare;
mod completions;
mod contradiction;
mod dashboard;
mod demo;
mod download;
mod embedded_server;
mod exit;
mod format;
mod hosts;
mod job_control;
mod logs;
mod man;
mod mistyped;
mod options;
mod prose;
mod run_log;
mod run_selection;
mod serve;
mod signals;
mod stderr;
mod stdout;
mod table;
mod timeline;
mod usage;
mod usage_error;
mod value;
mod warm_pool;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use self::args::{CoordinatorArgs, CoordinatorCommand};
use self::download::DownloadArgs;
use self::exit::ProgramExit;
use self::options::ColorOption;
use self::usage_error::UsageError;
use crate::files::task::Download;
use crate::flags::selection::SelectionError;
use crate::workload;
use procession::worker::{self, Asked};
use procession::{ProcessPool, Registry};
use procession_os as os;

/// Build id of these programs: a coordinator and its workers must have the same.
const BUILD: &str = env!("PROCESSION_BUILD");

/// A builder with the settings that all process pools of the programs have in common.
fn pool() -> procession::Builder {
    let pool = ProcessPool::builder().build_id(BUILD);
    match download::stack_under_a_limit() {
        Some(bytes) => pool.stack_size(bytes),
        None => pool,
    }
}

/// The `coordinator` program.
pub fn coordinator() -> ExitCode {
    on_a_stack_of_known_size(run_coordinator)
}

/// Runs a program on a thread of its own where the stack of this one is limited (`ulimit -s`).
fn on_a_stack_of_known_size(program: fn() -> ExitCode) -> ExitCode {
    os::threads::with_enough_stack(program).unwrap_or_else(|error| {
        stderr::print(format_args!(
            "procession: the limit of stacks (ulimit -s) is too low for this program, and it cannot \
             start a thread: {error}"
        ));
        ProgramExit::CouldNotWork.into()
    })
}

fn run_coordinator() -> ExitCode {
    survive_limits_of_file_sizes();
    os::memory::reserve_little();
    if let Some(asked) = worker::asked() {
        return serve_coordinator(asked);
    }
    usage::begin();
    stdout::fail_if_closed();
    run().unwrap_or_else(report_error).into()
}

fn run() -> anyhow::Result<ProgramExit> {
    let parsed = CoordinatorArgs::command()
        .try_get_matches()
        .and_then(|matches| Ok((CoordinatorArgs::from_arg_matches(&matches)?, matches)));
    let (CoordinatorArgs { command, download }, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse(error),
    };
    // Without these threads only Ctrl-Z and the reaping of orphans do not work.
    let _ = job_control::watch();
    if command.is_some() {
        stdout::ensure_open()?;
    }
    match command {
        None => run_download(download, &matches),
        Some(CoordinatorCommand::Fetch(args)) => {
            let matches = matches.subcommand_matches("fetch").unwrap_or(&matches);
            download::run((*args).into(), matches)
        }
        Some(command) => command.run(),
    }
}

fn run_download(args: DownloadArgs, matches: &ArgMatches) -> anyhow::Result<ProgramExit> {
    if let [word, command, ..] = &args.codes.cc[..]
        && word.eq_ignore_ascii_case("help")
        && mistyped::is_command(command)
    {
        let hint = mistyped::hint(word, &format!("{command} --help"));
        return Err(UsageError::new(&[], hint).into());
    }
    if let Some(word) = args.codes.cc.first()
        && let Some(command) = mistyped::meant(word)
    {
        return Err(UsageError::new(&[], mistyped::hint(word, &command)).into());
    }
    if let Some(told) = args.codes.cc.iter().find_map(|word| mistyped::elsewhere(word)) {
        return Err(UsageError::new(&[], told).into());
    }
    download::run(args.into(), matches)
}

/// Prints the error of a command; a closed standard output ends the program without a message.
fn report_error(error: anyhow::Error) -> ProgramExit {
    if error.is::<stdout::ClosedPipe>() {
        return ProgramExit::ClosedPipe;
    }
    if let Some(usage) = error.downcast_ref::<UsageError>() {
        print_usage_error(usage);
        return ProgramExit::Usage;
    }
    let why = format!("{error:#}");
    stderr::print(format_args!("coordinator: {why}"));
    run_log::end(ProgramExit::CouldNotWork as u8, Some(why));
    ProgramExit::CouldNotWork
}

/// Prints the error with the usage of its subcommand.
fn print_usage_error(usage: &UsageError) {
    let message = match misplaced_command(usage) {
        Some(command) => command_comes_first(&command),
        None => usage.message(),
    };
    let mut command = CoordinatorArgs::command();
    // Gives the subcommands their full names.
    command.build();
    let command = usage.subcommand().iter().fold(&mut command, |command, name| {
        command.find_subcommand_mut(name).expect("a subcommand of that name")
    });
    stderr::print_usage_error(&command.error(clap::error::ErrorKind::ValueValidation, message));
}

/// The subcommand that was typed in the place of a code.
fn misplaced_command(usage: &UsageError) -> Option<String> {
    match usage.find::<SelectionError>()? {
        SelectionError::Argument(word) if mistyped::is_command(word) => Some(word.clone()),
        _ => None,
    }
}

fn command_comes_first(command: &str) -> String {
    format!("{command} is a command, which must come first: see coordinator {command} --help")
}

/// Handles an error of the parser: a usage error, on stderr, or the help or the version, on stdout.
fn refuse(error: clap::Error) -> anyhow::Result<ProgramExit> {
    if !error.use_stderr() {
        stdout::print_prose(&error.render().ansi().to_string(), ColorOption::Auto)?;
        return Ok(ProgramExit::Success);
    }
    let mut typed = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let first = typed.next().unwrap_or_default();
    if error.kind() == clap::error::ErrorKind::UnknownArgument
        && let Some(command) = mistyped::meant(&first)
    {
        return Err(UsageError::new(&[], mistyped::hint(&first, &command)).into());
    }
    let later = typed.find(|word| mistyped::is_command(word));
    if error.kind() == clap::error::ErrorKind::ArgumentConflict
        && let (false, Some(command)) = (mistyped::is_command(&first), later)
    {
        return Err(UsageError::new(&[], command_comes_first(&command)).into());
    }
    if let Some(message) = blames_the_environment(&error) {
        return Err(UsageError::new(&[], message).into());
    }
    stderr::print_usage_error(&error);
    Ok(ProgramExit::Usage)
}

/// The message for a value that is refused, if it is that of an environment variable: the parser names the option.
fn blames_the_environment(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue};
    let Some(ContextValue::String(refused)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let mut command = CoordinatorArgs::command();
    command.build();
    let option = command.get_arguments().find(|option| option.to_string() == *refused)?;
    let (variable, long) = (option.get_env()?.to_str()?, format!("--{}", option.get_long()?));
    let value = std::env::var_os(variable)?;
    let is_typed =
        std::env::args_os().any(|word| word.to_string_lossy().split('=').next() == Some(&long));
    let why = std::error::Error::source(error).map(|why| format!(": {why}")).unwrap_or_default();
    (!is_typed).then(|| {
        format!(
            "invalid value {:?} of the environment variable {variable}{why}",
            value.to_string_lossy()
        )
    })
}

/// Handles SIGXFSZ, so that a write beyond the limit of file sizes is an error and does not end the
/// process. Programs that are started have the default action, since they do not inherit handlers.
fn survive_limits_of_file_sizes() {
    // Without the handler such a write ends the process.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

/// The `worker` program.
pub fn worker() -> ExitCode {
    on_a_stack_of_known_size(run_worker)
}

fn run_worker() -> ExitCode {
    survive_limits_of_file_sizes();
    os::memory::reserve_little();
    match worker::asked() {
        Some(asked) => serve_coordinator(asked),
        None => {
            stderr::print(format_args!(
                "worker: this is a worker process of procession. It takes its tasks from a \
                 coordinator, which starts it: run `coordinator --help`."
            ));
            ProgramExit::Usage.into()
        }
    }
}

fn serve_coordinator(asked: Asked) -> ExitCode {
    run_log::begin_in_worker(asked.worker());
    let code = match asked.serve(registry()) {
        Ok(()) => 0,
        Err(error) => {
            stderr::print(format_args!("worker: {error}"));
            1
        }
    };
    run_log::end(code, None);
    ExitCode::from(code)
}

/// All tasks of the programs.
fn registry() -> Registry {
    let registry = Registry::new().build_id(BUILD).with::<Download>();
    demo::add_to(workload::add_to(bench::add_to(registry)))
}
