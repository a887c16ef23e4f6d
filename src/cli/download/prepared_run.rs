//! A run with everything that it needs: the destination, the server, the log and the dashboard.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use procession::PrivateDir;
use procession_journal::{Level, LogEvent, RunOptions, RunSettings};

use super::collector::{Collector, RunMessage};
use super::conclusion;
use super::display::RunDisplay;
use super::executor::RunExecutor;
use super::parallelism::Parallelism;
use super::resource_limits;
use super::settings::DownloadSettings;
use super::submitter::Submitter;
use crate::cli::dashboard::RunDashboard;
use crate::cli::exit::ProgramExit;
use crate::cli::run_log::{self, SubmittedCodes};
use crate::cli::{embedded_server, stderr};
use crate::flag_server::FlagServer;
use crate::flags::client::FetchSettings;
use crate::flags::task::Download;
use crate::flags::{report, save, validators};

/// A run that can be executed.
pub(super) struct PreparedRun {
    pub settings: DownloadSettings,
    /// The requested parallelism within the limits of this process.
    pub parallelism: Parallelism,
    fetch: FetchSettings,
    /// The URL of the server for users.
    shown_url: String,
    /// Stopped when it is dropped.
    _server: Option<FlagServer>,
    pub log_dir: Option<PathBuf>,
    pub dashboard: Option<RunDashboard>,
    /// The directory of the pool's sockets. A run without it leaves more files behind if it is killed.
    _sockets: Option<PrivateDir>,
}

impl PreparedRun {
    pub(super) fn prepare(settings: DownloadSettings) -> anyhow::Result<Self> {
        let has_server = settings.site.base_url().is_none();
        let parallelism = resource_limits::apply(settings.parallelism, has_server)?;
        save::prepare(&settings.dest)?;
        save::sweep(&settings.dest);
        validators::tidy(&settings.dest);
        let server = embedded_server::start(&settings.site, settings.seed)?;
        let site_url = settings.site.base_url().unwrap_or_default();
        let fetch = FetchSettings {
            timeout: settings.timeout,
            retries: settings.retries,
            server: settings.site.to_string(),
            connections: parallelism.connections_per_process(),
            ..FetchSettings::new(server.as_ref().map_or(site_url.to_owned(), FlagServer::base_url))
        };
        let log_dir = run_log::begin(&settings.logs, settings.keep_runs)?;
        run_log::record(Level::Info, LogEvent::Run(as_logged(&settings, parallelism)));
        Ok(Self {
            parallelism,
            fetch,
            shown_url: server.as_ref().map_or(site_url.to_owned(), FlagServer::shown_url),
            _server: server,
            dashboard: open_dashboard(settings.dashboard, log_dir.as_deref())?,
            log_dir,
            _sockets: parallelism.has_processes().then(|| PrivateDir::create().ok()).flatten(),
            settings,
        })
    }

    /// Downloads the flags and reports the outcomes.
    pub(super) fn execute(
        self,
        (sender, messages): (Sender<RunMessage>, Receiver<RunMessage>),
    ) -> anyhow::Result<ProgramExit> {
        let began = Instant::now();
        let Self { settings, parallelism, .. } = &self;
        let mut display = RunDisplay::new(settings.display, settings.codes.len());
        let submitted = SubmittedCodes::default();
        let executor = RunExecutor::start(
            *parallelism,
            settings.retries,
            settings.workers,
            self.log_dir.as_deref(),
            settings.dest.as_ref(),
            &submitted,
            display.bar(),
        )?;
        let (label, style) = (settings.site.label(), parallelism.style());
        display.begin(&report::initial(label, &self.shown_url, &settings.codes, style));
        let mut collector = Collector::new(display, &settings.codes, began);
        let mut failure = None;
        if collector.display.write_error().is_none() {
            let engine = Arc::clone(&executor.engine);
            let submitter =
                Submitter::start(engine, self.downloads(), submitted, move |code, result| {
                    // An error means that the main thread does not receive any more.
                    let _ = sender.send(RunMessage::Done(code, result));
                });
            match submitter {
                Ok(submitter) => collector.receive(&messages, &submitter),
                Err(error) => failure = Some(format!("cannot start a thread: {error}")),
            }
        }
        conclusion::conclude(self, executor, collector, failure, began.elapsed())
    }

    fn downloads(&self) -> impl Iterator<Item = Download> + Send + 'static {
        let (fetch, dest) = (self.fetch.clone(), self.settings.dest.clone());
        let mut known = match self.settings.update {
            true => validators::read(&dest, &fetch.server),
            false => HashMap::new(),
        };
        self.settings.codes.clone().into_iter().map(move |code| Download {
            code,
            fetch: fetch.clone(),
            dest: dest.clone(),
            known: known.remove(&code),
            records_validators: true,
        })
    }
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
        server: settings.site.to_string(),
        program: None,
        codes: settings.codes.len(),
        workers: parallelism.workers(),
        connections: parallelism.connections(),
        dest: settings.dest.display().to_string(),
        wanted: settings.codes.iter().map(ToString::to_string).collect(),
        options: Some(RunOptions {
            seed: settings.seed,
            timeout_s: settings.timeout.as_secs_f64(),
            retries: settings.retries,
            task_timeout_s: settings.workers.task_timeout.map(|timeout| timeout.as_secs_f64()),
            max_tasks: settings.workers.max_tasks,
            update: settings.update,
        }),
        continues: settings.continues.clone(),
    }
}
