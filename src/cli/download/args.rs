//! The command lines of downloads as typed: each option's definition and help in one place.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::contradiction::{self, Contradiction};
use crate::cli::dashboard::DashboardArgs;
use crate::cli::hosts::{self, NatsArgs};
use crate::cli::options::{
    CodeArgs, DisplayArgs, Mode, ProgressOption, RequestArgs, SandboxOption, SiteArgs,
};
use crate::cli::value::{self, TypedHeaders};
use crate::files::item::FileItem;

/// A download of flags.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DownloadArgs {
    #[command(flatten)]
    pub codes: CodeArgs,
    #[command(flatten)]
    pub resume: ResumeArgs,
    #[command(flatten)]
    pub site: SiteArgs,
    #[command(flatten)]
    pub job: JobArgs,
}

/// Text of `fetch --help` below the options.
const FETCH_EXAMPLES: &str = "\
Examples:
  coordinator fetch https://example.org/a.png https://example.org/b.png
  coordinator fetch -i urls.txt -m 30          30 requests at a time
  grep -o 'https[^ ]*' page | coordinator fetch -i - -d pages
  coordinator fetch -i urls.txt --dry-run      which file each URL would become
  coordinator fetch -i urls.txt --update       only what has changed
  coordinator fetch --resume                   what an earlier run left undone

The list has a URL a line and, after spaces or a tab, the name of its file in
the destination if the name is not to be that of the URL's path:
  # a comment
  https://example.org/a.png
  https://example.org/download?id=7    reports/seven.pdf
If a name is taken, the file gets a number (a-2.png). A URL that comes twice is
fetched once. The first five of these lines are listed, and the others are
counted. If lines are wrong, nothing is fetched, and a message lists and counts
them in the same way.

Proxies and certificates are those of ALL_PROXY, HTTPS_PROXY, HTTP_PROXY,
NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR; this machine itself is reached without
a proxy.

Exit code: as of coordinator; see coordinator --help.";

/// Fetch the files of any URLs, each accounted for
#[derive(Debug, clap::Args)]
#[command(after_help = FETCH_EXAMPLES)]
pub(in crate::cli) struct FetchArgs {
    #[command(flatten)]
    pub urls: UrlArgs,
    #[command(flatten)]
    pub resume: ResumeArgs,
    #[command(flatten)]
    pub job: JobArgs,
}

/// Which URLs.
#[derive(Debug, Default, clap::Args)]
#[group(id = "selection")]
pub(in crate::cli) struct UrlArgs {
    /// A URL, http or https
    #[arg(value_name = "URL")]
    pub url: Vec<String>,
    /// The URLs in this file, one a line, or on standard input if it is `-`; may be given several times
    #[arg(short, long, value_name = "FILE", help_heading = "Which files")]
    pub input: Vec<PathBuf>,
    /// Only the first N
    #[arg(short, long, value_name = "N", value_parser = value::positive("--limit N"), allow_negative_numbers = true, help_heading = "Which files")]
    pub limit: Option<usize>,
}

/// Which run to continue, and which of its codes.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Going on with an earlier run")]
pub(in crate::cli) struct ResumeArgs {
    /// What an interrupted or killed run left undone, into the same destination [RUN: the newest
    /// unfinished one]
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = UNNAMED, conflicts_with_all = SELECTION)]
    pub resume: Option<String>,
    /// What failed in a run [RUN: the newest in which something failed]; with --resume, both
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = UNNAMED, conflicts_with_all = SELECTION)]
    pub retry_failed: Option<String>,
    /// Name of the run to continue, once it is known.
    #[arg(skip)]
    pub continues: Option<String>,
}

/// The value of the options without a name of a run.
pub(super) const UNNAMED: &str = "";

/// The group of the options that contradict the files of the earlier run.
const SELECTION: [&str; 1] = ["selection"];

/// The options of all downloads.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct JobArgs {
    #[command(flatten)]
    pub request: RequestArgs,
    /// A header of each request, such as 'Accept: text/plain', or @FILE for the lines of a file; may be given
    /// several times. Logs keep its name only
    #[arg(long, value_name = "HEADER", value_parser = value::headers, help_heading = "From where")]
    pub header: Vec<TypedHeaders>,
    /// Do not fetch files again that are there and have not changed (by ETag and Last-Modified)
    #[arg(long, help_heading = "From where")]
    pub update: bool,
    /// The largest file that is accepted, in bytes, or with k, M or G [default: 10 MB; with fetch no limit]
    #[arg(long, value_name = "SIZE", value_parser = value::size("--max-size SIZE"), help_heading = "From where")]
    pub max_size: Option<u64>,

    /// How to run the downloads: sequential, threads, processes or hosts
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "processes",
        hide_possible_values = true,
        help_heading = "How"
    )]
    pub mode: Mode,
    /// Maximum number of concurrent requests [default: one per worker process; 30 threads; 1 sequential]
    #[arg(short, long = "max_req", alias = "max-req", value_name = "CONCURRENT", value_parser = value::positive("--max_req CONCURRENT"), allow_negative_numbers = true, help_heading = "How")]
    pub max_req: Option<usize>,
    /// Maximum number of requests per second over all processes, further tries included
    #[arg(long, value_name = "N", value_parser = value::rate, allow_negative_numbers = true, help_heading = "How")]
    pub rate: Option<f64>,
    /// Timeout of one file, in seconds, retries included; then its worker is killed and replaced
    #[arg(long, value_name = "SECS", value_parser = value::seconds("--task-timeout SECS"), allow_negative_numbers = true, help_heading = "How")]
    pub task_timeout: Option<Duration>,
    /// Replace a worker process after N files
    #[arg(long, value_name = "N", value_parser = value::positive("--max-tasks-per-worker N"), allow_negative_numbers = true, help_heading = "How")]
    pub max_tasks_per_worker: Option<usize>,
    /// Sandbox of the worker processes: it allows them the network, the destination and their log. auto is
    /// strict where this system has it (Linux), else none
    #[arg(
        long,
        value_enum,
        value_name = "LEVEL",
        ignore_case = true,
        default_value = "auto",
        help_heading = "How"
    )]
    pub sandbox: SandboxOption,
    /// Worker processes [default: one per CPU]
    #[arg(short, long, value_name = "N", value_parser = value::positive("--workers N"), allow_negative_numbers = true, help_heading = "How")]
    pub workers: Option<usize>,
    /// Send no new requests after the first error; those in flight are completed and may be errors too, at most
    /// one fewer than run at a time; the rest is not done
    #[arg(long, conflicts_with = "max_errors", help_heading = "How")]
    pub fail_fast: bool,
    /// The same after N errors
    #[arg(long, value_name = "N", value_parser = value::positive("--max-errors N"), allow_negative_numbers = true, help_heading = "How")]
    pub max_errors: Option<usize>,
    /// Print what would be fetched, and where it would be saved, and do nothing
    #[arg(long, help_heading = "How")]
    pub dry_run: bool,
    #[command(flatten)]
    pub nats: NatsArgs,
    /// Name of the job on other hosts: if this run is killed, the same command continues it. What its hosts had
    /// begun is not begun again. Not with --update, --rate, --resume, --retry-failed, or a server that is started
    /// for the run
    #[arg(long = "job", value_name = "NAME", requires = "nats", help_heading = hosts::HEADING)]
    pub job_name: Option<String>,

    /// Where files are saved; made if missing
    #[arg(short, long, value_name = "DIR", default_value = "downloads", help_heading = "Output")]
    pub dest: PathBuf,
    #[command(flatten)]
    pub dashboard: DashboardArgs,
    /// A line for each file instead of the bar
    #[arg(short, long, conflicts_with = "json", help_heading = "Output")]
    pub verbose: bool,
    /// A line of JSON for each file, as it completes, then a summary
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Write a line for each file into FILE as well, with tabs between its columns. An older job log is replaced;
    /// any other file is refused
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub joblog: Option<PathBuf>,
    #[command(flatten)]
    pub display: DisplayArgs,
    /// Exit with 1 if a file was not found
    #[arg(long, help_heading = "Output")]
    pub fail_on_missing: bool,
    /// Directory of the logs, one file for each process of a run [default: logs]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub log_dir: Option<PathBuf>,
    /// Number of runs whose logs are kept, this one included; older logs are removed, except those
    /// of up to 3 unfinished runs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = value::positive("--keep-runs N"), allow_negative_numbers = true, help_heading = "Output")]
    pub keep_runs: usize,
    /// Keep no logs
    #[arg(long, conflicts_with_all = ["log_dir", "keep_runs"], help_heading = "Output")]
    pub no_logs: bool,
}

impl JobArgs {
    /// The headers, in the order in which they were typed.
    pub(super) fn headers(&self) -> impl Iterator<Item = &(String, String)> {
        self.header.iter().flat_map(|TypedHeaders(headers)| headers)
    }

    /// Checks that no option would have to be ignored.
    pub(super) fn check(&self) -> Result<(), Contradiction> {
        match (self.mode, self.workers, self.max_req) {
            (Mode::Sequential, _, Some(requests @ 2..)) => {
                return Err(Contradiction::RequestsOfSequential(requests));
            }
            (Mode::Sequential, Some(workers), _) => {
                return Err(Contradiction::WorkersOfSequential(workers));
            }
            (Mode::Threads, Some(workers), _) => {
                return Err(Contradiction::WorkersOfThreads(workers));
            }
            (Mode::Hosts, Some(workers), _) => {
                return Err(Contradiction::WorkersOfHosts(workers));
            }
            (Mode::Processes, Some(workers), Some(requests)) if workers > requests => {
                return Err(Contradiction::MoreWorkersThanRequests { workers, requests });
            }
            _ => {}
        }
        if self.verbose && self.display.progress == ProgressOption::Bar {
            return Err(Contradiction::VerboseAndBar);
        }
        Ok(())
    }
}

/// What a job downloads, as typed.
#[derive(Debug)]
pub(super) enum SourceArgs {
    Flags {
        codes: CodeArgs,
        site: SiteArgs,
    },
    Urls(UrlArgs),
    /// What is left of an earlier run.
    Left(Vec<FileItem>),
}

/// A download as typed, by either command.
#[derive(Debug)]
pub(in crate::cli) struct JobRequest {
    pub(super) source: SourceArgs,
    pub(super) resume: ResumeArgs,
    pub(super) job: JobArgs,
}

impl From<DownloadArgs> for JobRequest {
    fn from(DownloadArgs { codes, resume, site, job }: DownloadArgs) -> Self {
        Self { source: SourceArgs::Flags { codes, site }, resume, job }
    }
}

impl From<FetchArgs> for JobRequest {
    fn from(FetchArgs { urls, resume, job }: FetchArgs) -> Self {
        Self { source: SourceArgs::Urls(urls), resume, job }
    }
}

impl JobRequest {
    /// Checks that no option would have to be ignored.
    pub(super) fn check(&self) -> Result<(), Contradiction> {
        self.job.check()?;
        self.check_job_name()?;
        match &self.source {
            SourceArgs::Flags { site, .. } => contradiction::check_site(site),
            SourceArgs::Urls(_) | SourceArgs::Left(_) => Ok(()),
        }
    }

    /// A run continues a job that has a name only with the same tasks in the same order.
    fn check_job_name(&self) -> Result<(), Contradiction> {
        if self.job.job_name.is_none() {
            return Ok(());
        }
        let changes = [
            (self.resume.resume.is_some(), "--resume"),
            (self.resume.retry_failed.is_some(), "--retry-failed"),
            // The task contains what is known of the file that is there.
            (self.job.update, "--update"),
            // The task contains the path of a file of this run.
            (self.job.rate.is_some(), "--rate N"),
        ];
        if let Some((_, option)) = changes.into_iter().find(|(is_there, _)| *is_there) {
            return Err(Contradiction::JobOfOtherTasks(option));
        }
        match &self.source {
            SourceArgs::Flags { site, .. } if site.server.base_url().is_none() => {
                Err(Contradiction::JobOfOwnServer(site.server.clone()))
            }
            _ => Ok(()),
        }
    }

    /// The subcommand that was typed.
    pub(super) fn subcommand(&self) -> &'static [&'static str] {
        match self.source {
            SourceArgs::Flags { .. } => &[],
            SourceArgs::Urls(_) | SourceArgs::Left(_) => &["fetch"],
        }
    }

    /// The arguments of `coordinator ARGS`.
    #[cfg(test)]
    pub(super) fn typed(args: &[&str]) -> Self {
        #[derive(clap::Parser)]
        struct DownloadCommand {
            #[command(flatten)]
            args: DownloadArgs,
        }
        let args = [&["coordinator"], args].concat();
        <DownloadCommand as clap::Parser>::parse_from(args).args.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_a_name_only_if_the_same_command_has_the_same_tasks_the_next_time() {
        let named = ["--mode", "hosts", "--nats", "nats://h", "--job", "nightly"];
        let check = |args: &[&str]| JobRequest::typed(&[&named[..], args].concat()).check();
        for server in ["REMOTE", "http://h/flags"] {
            assert_eq!(check(&["-s", server]), Ok(()));
        }
        let refused = |args: &[&str]| check(args).expect_err("a refusal").to_string();
        for server in ["LOCAL", "DELAY", "ERROR"] {
            let refusal = refused(&["-s", server]);
            assert!(refusal.contains(&format!("contradicts --server {server}")), "{refusal}");
        }
        for option in ["--resume", "--retry-failed", "--update", "--rate"] {
            let value = if option == "--rate" { &["3"][..] } else { &[] };
            let refusal = refused(&[&["-s", "REMOTE", option], value].concat());
            assert!(refusal.contains(&format!("contradicts {option}")), "{refusal}");
        }
    }
}
