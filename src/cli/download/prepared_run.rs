//! A run with everything that it needs: the destination, the items, the log and the dashboard.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::Context;
use procession::PrivateDir;
use procession_journal::{Level, LogEvent, RunOptions, RunSettings};
use procession_os::threads;
use tempfile::TempDir;

use super::collector::{Collector, RunMessage};
use super::display::RunDisplay;
use super::executor::RunExecutor;
use super::joblog::JobLog;
use super::logged_items;
use super::parallelism::Parallelism;
use super::resource_limits;
use super::settings::DownloadSettings;
use super::source::{ItemSource, OpenedSource};
use super::submitter::{ErrorBound, Submitter};
use crate::cli::dashboard::RunDashboard;
use crate::cli::run_log::{self, SubmittedCodes};
use crate::cli::stderr;
use crate::files::client::FetchSettings;
use crate::files::rate::RateLimit;
use crate::files::task::Download;
use crate::files::validators::KnownFiles;
use crate::files::{report, save, validators};

/// A run that can be executed.
pub(super) struct PreparedRun {
    pub settings: DownloadSettings,
    /// The requested parallelism within the limits of this process.
    pub parallelism: Parallelism,
    fetch: FetchSettings,
    source: OpenedSource,
    joblog: Option<JobLog>,
    /// The directory of the file that limits the requests per second, if they are limited.
    rate_dir: Option<TempDir>,
    pub log_dir: Option<PathBuf>,
    pub dashboard: Option<RunDashboard>,
    /// The directory of the pool's sockets. A run without it leaves more files behind if it is killed.
    _sockets: Option<PrivateDir>,
}

/// A run whose outcomes are there, as far as it got.
pub(super) struct ExecutedRun {
    pub run: PreparedRun,
    pub executor: RunExecutor,
    pub collector: Collector,
    /// Why no item could be submitted.
    pub failure: Option<String>,
    pub elapsed: Duration,
}

impl PreparedRun {
    pub(super) fn prepare(settings: DownloadSettings) -> anyhow::Result<Self> {
        let parallelism =
            resource_limits::apply(settings.parallelism, settings.source.needs_server())?;
        save::prepare(&settings.dest)?;
        save::sweep(&settings.dest);
        validators::tidy(&settings.dest);
        let joblog = settings.joblog.as_deref().map(JobLog::create).transpose()?;
        let source = settings.source.open()?;
        save::prepare_for(&settings.dest, source.items.iter().map(|item| item.file.as_str()))?;
        let sockets = match (parallelism.has_processes(), settings.rate) {
            // The file of the limit is in it, too, and workers that start later open it.
            (_, Some(_)) => PrivateDir::create().ok(),
            (true, None) => PrivateDir::create_in_memory().ok(),
            (false, None) => None,
        };
        let rate_dir = settings.rate.map(|_| tempfile::tempdir()).transpose();
        let rate_dir = rate_dir.context("cannot make a file for --rate")?;
        let fetch = FetchSettings {
            timeout: settings.timeout,
            retries: settings.retries,
            max_bytes: settings.max_bytes,
            server: settings.source.server_label(),
            connections: parallelism.connections_per_process(),
            headers: settings.headers.clone(),
            longest_url: source.items.iter().map(|item| item.url.len()).max().unwrap_or_default(),
            rate: rate_limit(settings.rate, rate_dir.as_ref())?,
            ..FetchSettings::default()
        };
        let log_dir = run_log::begin(&settings.logs, settings.keep_runs)?;
        run_log::record(Level::Info, LogEvent::Run(as_logged(&settings, parallelism)));
        logged_items::record(&settings);
        Ok(Self {
            parallelism,
            fetch,
            source,
            joblog,
            rate_dir,
            dashboard: open_dashboard(settings.dashboard, log_dir.as_deref())?,
            log_dir,
            _sockets: sockets,
            settings,
        })
    }

    /// Downloads the items, and shows the outcomes as they come.
    pub(super) fn execute(
        mut self,
        (sender, messages): (Sender<RunMessage>, Receiver<RunMessage>),
    ) -> anyhow::Result<ExecutedRun> {
        let began = Instant::now();
        let joblog = self.joblog.take();
        let Self { settings, parallelism, source, .. } = &self;
        let mut display = RunDisplay::new(settings, joblog);
        let submitted = SubmittedCodes::default();
        let executor = RunExecutor::start(
            *parallelism,
            settings.retries,
            settings.workers.clone(),
            self.log_dir.as_deref(),
            &self.written(),
            &submitted,
            display.bar(),
        )?;
        let (noun, style) = (settings.source.noun(), parallelism.style());
        display.begin(&report::initial(&source.headline, noun, &source.items, style));
        let items = Arc::clone(&source.items);
        let mut collector = Collector::new(display, items, settings.max_errors, began);
        let mut failure = None;
        if collector.display.write_error().is_none() {
            let engine = Arc::clone(&executor.engine);
            let bound = settings
                .max_errors
                .map(|errors| ErrorBound { errors, in_flight: executor.most_in_flight() });
            let done = move |number, result| {
                // An error means that the main thread does not receive any more.
                let _ = sender.send(RunMessage::Done(number, result));
            };
            let submitter = Submitter::start(engine, self.downloads(), submitted, bound, done);
            match submitter {
                Ok(submitter) => collector.receive(&messages, &submitter),
                Err(error) => failure = Some(threads::refusal(&error)),
            }
        }
        Ok(ExecutedRun { run: self, executor, collector, failure, elapsed: began.elapsed() })
    }

    /// The directories in which workers write.
    fn written(&self) -> Vec<&Path> {
        let rate = self.rate_dir.as_ref().map(TempDir::path);
        let dirs = [Some(self.settings.dest.as_path()), self.log_dir.as_deref(), rate];
        dirs.into_iter().flatten().collect()
    }

    fn downloads(&self) -> impl Iterator<Item = Download> + Send + 'static {
        let (fetch, dest) = (self.fetch.clone(), self.settings.dest.clone());
        let mut known = match self.settings.update {
            true => KnownFiles::read(&dest),
            false => KnownFiles::default(),
        };
        let items = Arc::clone(&self.source.items);
        (0..items.len()).map(move |number| Download {
            item: items[number].clone(),
            known: known.take(fetch.server.as_deref(), &items[number]),
            fetch: fetch.clone(),
            dest: dest.clone(),
            records_validators: true,
        })
    }
}

/// The limit, in a new file.
fn rate_limit(rate: Option<f64>, dir: Option<&TempDir>) -> anyhow::Result<Option<RateLimit>> {
    let (Some(per_second), Some(dir)) = (rate, dir) else { return Ok(None) };
    let file = std::path::absolute(dir.path().join("rate"))?;
    File::create(&file).context("cannot make a file for --rate")?;
    Ok(Some(RateLimit { file, per_second }))
}

fn open_dashboard(
    addr: Option<SocketAddr>,
    log_dir: Option<&Path>,
) -> anyhow::Result<Option<RunDashboard>> {
    let Some(addr) = addr else { return Ok(None) };
    let Some(logs) = log_dir else {
        stderr::print(format_args!("coordinator: without logs there is no dashboard"));
        return Ok(None);
    };
    let dashboard = RunDashboard::open(addr)?;
    dashboard.watch(logs)?;
    Ok(Some(dashboard))
}

/// The settings as the log records them: all that another run needs to continue this one.
fn as_logged(settings: &DownloadSettings, parallelism: Parallelism) -> RunSettings {
    RunSettings {
        mode: parallelism.mode().to_owned(),
        server: settings.source.server_name(),
        program: None,
        codes: settings.source.len(),
        workers: parallelism.workers(),
        connections: parallelism.connections(),
        dest: settings.dest.display().to_string(),
        wanted: wanted(&settings.source),
        options: Some(RunOptions {
            seed: settings.source.seed(),
            timeout_s: settings.timeout.as_secs_f64(),
            retries: settings.retries,
            task_timeout_s: settings.workers.task_timeout.map(|timeout| timeout.as_secs_f64()),
            max_tasks: settings.workers.max_tasks,
            update: settings.update,
        }),
        continues: settings.continues.clone(),
    }
}

/// The most bytes of codes in the settings of a run. Readers that want only these read no more of a log.
const MOST_WANTED: usize = 32 * 1024;

/// The codes, unless they are too many for one line. Those of URLs have lines of their own as well.
fn wanted(source: &ItemSource) -> Vec<String> {
    match source {
        ItemSource::Flags { codes, .. } => codes.iter().map(ToString::to_string).collect(),
        ItemSource::Urls { items, .. } => {
            let bytes: usize = items.iter().map(|item| item.code.len() + 3).sum();
            let codes = items.iter().map(|item| item.code.clone());
            if bytes > MOST_WANTED { Vec::new() } else { codes.collect() }
        }
    }
}
