//! Options that several commands have, as typed.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Command, Error, ValueEnum};

use super::value::{self, ValueError};
use crate::flags::codes::Code;
use crate::flags::selection::{CodesFile, Selection, SelectionError};
use crate::flags::site::Site;

/// What worker processes may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SandboxOption {
    /// Strict, or none where this system does not have all of its layers
    Auto,
    /// Workers have all rights of the user
    None,
    /// Workers can use no other files of the user and no other processes
    Basic,
    /// Workers can use the network, the destination and their log, and nothing else
    Strict,
}

/// Which flags.
#[derive(Debug, Default, clap::Args)]
#[group(id = "selection")]
pub(super) struct CodeArgs {
    /// Country code or first letter, any case (B for BA to BZ)
    #[arg(value_name = "CC")]
    pub cc: Vec<String>,
    /// All available flags: 194 codes, AD to ZW
    #[arg(short, long, conflicts_with_all = ["cc", "every", "codes_file"], help_heading = "Which flags")]
    pub all: bool,
    /// Every possible code: 676, AA to ZZ
    #[arg(short, long, conflicts_with_all = ["cc", "codes_file"], help_heading = "Which flags")]
    pub every: bool,
    /// The codes in this file, or on standard input if it is `-`
    #[arg(long, value_name = "FILE", help_heading = "Which flags")]
    pub codes_file: Option<PathBuf>,
    /// Only the first N, after sorting
    #[arg(short, long, value_name = "N", value_parser = value::positive("--limit N"), allow_negative_numbers = true, help_heading = "Which flags")]
    pub limit: Option<usize>,
}

/// The requested codes are invalid.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodeArgsError {
    #[error("{0}")]
    Selection(#[from] SelectionError),
    #[error("--codes-file FILE must be readable text: {}", file.display())]
    CodesFile { file: PathBuf, source: io::Error },
}

impl CodeArgs {
    /// The requested codes.
    pub(super) fn resolve(self) -> Result<Vec<Code>, CodeArgsError> {
        let Self { cc, all, every, codes_file, limit } = self;
        let codes_file = codes_file.map(|file| read_codes_file(&file)).transpose()?;
        Ok(Selection { args: cc, all, every, codes_file, limit }.expand()?)
    }
}

fn read_codes_file(file: &Path) -> Result<CodesFile, CodeArgsError> {
    let (name, text) = value::read_text(file)
        .map_err(|source| CodeArgsError::CodesFile { file: file.to_owned(), source })?;
    Ok(CodesFile { name, text })
}

/// From where flags come.
#[derive(Debug, clap::Args)]
pub(super) struct SiteArgs {
    /// LOCAL, REMOTE, DELAY, ERROR, or a base URL
    #[arg(
        short,
        long,
        value_name = "LABEL|URL",
        default_value = "LOCAL",
        value_parser = SiteParser,
        hide_possible_values = true,
        help_heading = "From where"
    )]
    pub server: Site,
    /// Seed of the faults of ERROR [default: the same each time]
    #[arg(long, value_name = "N", value_parser = value::unsigned::<u64>("--seed N"), allow_negative_numbers = true, help_heading = "From where")]
    pub seed: Option<u64>,
}

/// The timeout of a request for a flag.
pub(super) const FLAG_TIMEOUT: Duration = Duration::from_secs(10);

/// How a server is asked.
#[derive(Debug, clap::Args)]
pub(super) struct RequestArgs {
    /// Timeout of one request, in seconds, from connecting to the last byte [default: 10; with fetch 60]
    #[arg(long, value_name = "SECS", value_parser = value::seconds("--timeout SECS"), allow_negative_numbers = true, help_heading = "From where")]
    pub timeout: Option<Duration>,
    /// Further tries after connection errors, timeouts, HTTP 429 and 5xx
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value::unsigned::<u32>("--retries N"), allow_negative_numbers = true, help_heading = "From where")]
    pub retries: u32,
}

/// How a command shows its work.
#[derive(Debug, clap::Args)]
pub(super) struct DisplayArgs {
    /// Progress on stderr: bar, lines (one every 5 s; lines:SECS), none, or auto (a bar on a terminal, unless
    /// stdout is a pipe; else lines)
    #[arg(
        long,
        value_parser = value::suggesting(progress, &["auto", "bar", "lines", "none"]),
        hide_possible_values = true,
        env = "COORDINATOR_PROGRESS",
        hide_env_values = true,
        value_name = "HOW",
        default_value = "auto",
        help_heading = "Output"
    )]
    pub progress: ProgressOption,
    /// Colour: auto (if the terminal has it, and NO_COLOR is not set), always or never
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Output"
    )]
    pub color: ColorOption,
}

/// Whether a view of a run is coloured.
#[derive(Debug, clap::Args)]
pub(super) struct ColorArgs {
    /// Colour: auto (if the terminal has it, and NO_COLOR is not set), always or never
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true
    )]
    pub color: ColorOption,
}

/// The kind of executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// One after the other
    Sequential,
    /// On threads of one process
    #[value(alias = "thread")]
    Threads,
    /// In worker processes
    #[value(alias = "process")]
    Processes,
    /// On other hosts, by their agents
    #[value(alias = "host")]
    Hosts,
}

impl Mode {
    /// The name in reports and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Threads => "threads",
            Self::Processes => "processes",
            Self::Hosts => "hosts",
        }
    }
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProgressOption {
    /// A bar if stderr is a terminal that can draw it, else lines.
    Auto,
    /// A bar in any case.
    Bar,
    /// A line at this interval.
    Lines(Duration),
    None,
}

/// The interval of lines of progress.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// The servers that have a name, and any other. Shells complete the names.
#[derive(Debug, Clone)]
struct SiteParser;

impl TypedValueParser for SiteParser {
    type Value = Site;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Site, Error> {
        Site::from_str.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let sites = [Site::Local, Site::Delay, Site::Error, Site::Remote];
        Some(Box::new(sites.into_iter().map(|site| site.label().into())))
    }
}

fn progress(typed: &str) -> Result<ProgressOption, ValueError> {
    let typed = typed.to_ascii_lowercase();
    match typed.as_str() {
        "auto" => Ok(ProgressOption::Auto),
        "bar" => Ok(ProgressOption::Bar),
        "lines" => Ok(ProgressOption::Lines(PROGRESS_INTERVAL)),
        "none" => Ok(ProgressOption::None),
        other => {
            let interval = other.strip_prefix("lines:").ok_or(ValueError::NotProgress)?;
            let interval = value::seconds("--progress lines:SECS")(interval)?;
            Ok(ProgressOption::Lines(interval))
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorOption {
    /// If the terminal can, and NO_COLOR is not set
    Auto,
    /// In any case
    Always,
    /// Never
    Never,
}

impl ColorOption {
    /// The choice for standard output.
    pub(super) fn for_stdout(self) -> ColorChoice {
        match self {
            Self::Auto => AutoStream::choice(&io::stdout()),
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
        }
    }
}
