//! The measurements. Each has a time budget; its result is the median of the repetitions that fit into it.

use std::ops::RangeInclusive;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::error::{BenchError, Interrupt};
use super::figures::{
    Cost, Figures, LONGEST_MS, MedianAndMax, Payload, PerMode, Quantiles, REPETITIONS, rounded,
};
use super::tasks::{BenchNoop, Echo, ExitProcess, Spin};
use crate::cli::background_load::BackgroundLoad;
use crate::cli::bar;
use crate::cli::warm_pool::{Shortage, StartOutcome};
use procession::{Builder, Engine, Executor, ProcessPool, Sequential, ThreadPool, as_completed};

/// Minimum number of tries of a median.
const MIN_TRIES: usize = 7;
/// Minimum number of comparisons in each repetition.
const COMPARISONS: usize = 3;
/// Number of empty tasks in a batch.
const BATCH: usize = 2000;
/// Duration of a batch of tasks that work.
const BATCH_TIME: Duration = Duration::from_millis(20);
/// Maximum time for the start of one more worker.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval of checks for a signal while workers start.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The measured lengths of tasks. The extra of longer tasks is smaller than the noise.
const LENGTHS: [Duration; 3] =
    [Duration::ZERO, Duration::from_micros(100), Duration::from_micros((LONGEST_MS * 1e3) as u64)];

/// How long to measure, and with which payloads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    is_quick: bool,
    /// Time for each result.
    time: Duration,
    /// Maximum number of pools that are started, and of workers that die.
    max_starts: usize,
    /// Sizes of the payloads, in bytes.
    sizes: [usize; 3],
}

impl Effort {
    pub(super) const FULL: Self = Self {
        is_quick: false,
        time: Duration::from_millis(2500),
        max_starts: 100,
        sizes: [64 << 10, 1 << 20, 64 << 20],
    };
    pub(super) const QUICK: Self = Self {
        is_quick: true,
        time: Duration::from_millis(150),
        max_starts: 10,
        sizes: [64 << 10, 1 << 20, 8 << 20],
    };
}

/// A benchmark.
pub(super) struct Benchmark {
    workers: usize,
    effort: Effort,
    interrupt: Interrupt,
    progress: ProgressBar,
}

impl Benchmark {
    pub(super) fn new(workers: usize, effort: Effort, interrupt: Interrupt) -> Self {
        let target = bar::target(bar::can_be_drawn());
        let progress = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("measuring {msg}");
        progress.set_style(style.expect("a template that is part of the program"));
        Self { workers, effort, interrupt, progress }
    }

    pub(super) fn run(&self) -> Result<Figures, BenchError> {
        let figures = self.figures();
        self.progress.finish_and_clear();
        figures
    }

    fn figures(&self) -> Result<Figures, BenchError> {
        let (background, used_before) = (BackgroundLoad::watch(), of_workers());
        let start_up = self.start_up()?;
        let (sequential, threads) = (Sequential::new(), ThreadPool::new(self.workers));
        let processes = self.pool(self.workers)?;
        let modes = PerMode {
            sequential: &sequential as &dyn Engine,
            threads: &threads,
            processes: &processes,
        };
        let round_trip = self.in_each("a round trip", modes, Self::round_trip)?;
        let submit = self.in_each("submit", modes, Self::submit)?;
        let map = self.in_each("map", modes, Self::map)?;
        let payloads = self.effort.sizes.iter().map(|&size| self.payload(&processes, size));
        let payloads = payloads.collect::<Result<_, _>>()?;
        let extras = self.extras(modes)?;
        drop(processes);
        let respawn = self.respawn()?;
        // All workers have ended, so their CPU time is known.
        let used = of_workers().saturating_sub(used_before);
        // It is not known if SIGCHLD is ignored; then it would count as that of other programs.
        let background_load = (!used.is_zero()).then(|| background.share(used)).flatten();
        let cost = Cost::of(&extras, background_load);
        let advice = cost.advice(background_load, self.effort.is_quick);
        Ok(Figures {
            version: env!("CARGO_PKG_VERSION"),
            cpus: num_cpus::get(),
            workers: self.workers,
            quick: self.effort.is_quick,
            start_up_ms: start_up,
            respawn_ms: respawn,
            round_trip_us: round_trip,
            submit_tasks_per_s: submit,
            map_tasks_per_s: map,
            payloads,
            cost,
            background_load: background_load.map(rounded),
            debug_build: cfg!(debug_assertions),
            advice,
        })
    }

    fn show(&self, what: impl Into<String>) {
        self.progress.set_message(what.into());
        self.progress.tick();
    }

    fn in_each<T>(
        &self,
        what: &str,
        modes: PerMode<&dyn Engine>,
        measure: impl Fn(&Self, &dyn Engine) -> Result<T, BenchError>,
    ) -> Result<PerMode<T>, BenchError> {
        let one = |mode: &str, engine| {
            self.show(format!("{what}: {mode}"));
            measure(self, engine)
        };
        Ok(PerMode {
            sequential: one("sequential", modes.sequential)?,
            threads: one("threads", modes.threads)?,
            processes: one("processes", modes.processes)?,
        })
    }

    /// The durations of several tries, in seconds and sorted. The number of tries is within the range and
    /// depends on the time for a result.
    fn times(
        &self,
        tries: RangeInclusive<usize>,
        mut once: impl FnMut() -> Result<Duration, BenchError>,
    ) -> Result<Vec<f64>, BenchError> {
        self.values(tries, self.effort.time, || Ok(once()?.as_secs_f64()))
    }

    /// The values of several tries, sorted.
    fn values(
        &self,
        tries: RangeInclusive<usize>,
        time: Duration,
        mut once: impl FnMut() -> Result<f64, BenchError>,
    ) -> Result<Vec<f64>, BenchError> {
        let begun = Instant::now();
        let mut values = Vec::new();
        while values.len() < *tries.start()
            || (values.len() < *tries.end() && begun.elapsed() < time)
        {
            self.interrupt.check()?;
            values.push(once()?);
        }
        values.sort_unstable_by(f64::total_cmp);
        Ok(values)
    }

    /// A pool whose workers have all started.
    fn pool(&self, workers: usize) -> Result<ProcessPool, BenchError> {
        let (started, starts) = mpsc::channel();
        let pool = builder(workers).on_event_except_starts(move |event| {
            if let Some(start) = StartOutcome::of(event) {
                let _ = started.send(start);
            }
        });
        let pool = pool.build().map_err(|error| BenchError::Failed(error.into()))?;
        let first = pool.submit(BenchNoop);
        let (mut ready, mut latest, mut shortage) = (0, Instant::now(), Shortage::default());
        while ready < workers {
            self.interrupt.check()?;
            match starts.recv_timeout(POLL_INTERVAL) {
                Ok(StartOutcome::Done) => (ready, latest) = (ready + 1, Instant::now()),
                Ok(StartOutcome::Delayed(reason)) => shortage.note(reason),
                Err(_) => {}
            }
            if ready == 0 && first.is_done() {
                // The error, if there is one, says why no worker can start.
                pool.submit(BenchNoop).result()?;
            }
            if let Some(why) = shortage.lasting() {
                let why = anyhow!("only {ready} of {workers} workers could be started: {why}");
                return Err(BenchError::Failed(why));
            }
            if latest.elapsed() > START_TIMEOUT {
                let why = anyhow!("only {ready} of {workers} workers have started");
                return Err(BenchError::Failed(why));
            }
        }
        first.result()?;
        Ok(pool)
    }

    fn start_up(&self) -> Result<MedianAndMax, BenchError> {
        self.show("fresh pools");
        let times = self.times(MIN_TRIES..=self.effort.max_starts, || {
            let begun = Instant::now();
            let pool = builder(self.workers).build();
            let pool = pool.map_err(|error| BenchError::Failed(error.into()))?;
            pool.submit(BenchNoop).result()?;
            Ok(begun.elapsed())
        })?;
        Ok(range_ms(&times))
    }

    fn respawn(&self) -> Result<MedianAndMax, BenchError> {
        self.show("deaths");
        let pool = self.pool(1)?;
        let times = self.times(MIN_TRIES..=self.effort.max_starts, || {
            let dies = pool.submit(ExitProcess);
            let next = pool.submit(BenchNoop);
            let _ = dies.result();
            let died = Instant::now();
            next.result()?;
            Ok(died.elapsed())
        })?;
        Ok(range_ms(&times))
    }

    fn round_trip(&self, engine: &dyn Engine) -> Result<Quantiles, BenchError> {
        let times = self.times(MIN_TRIES..=usize::MAX, || {
            let begun = Instant::now();
            engine.submit(BenchNoop).result()?;
            Ok(begun.elapsed())
        })?;
        let us = |share| rounded(quantile(&times, share) * 1e6);
        Ok(Quantiles { p50: us(0.5), p99: us(0.99) })
    }

    fn submit(&self, engine: &dyn Engine) -> Result<f64, BenchError> {
        let times = self.times(MIN_TRIES..=usize::MAX, || batch(engine, BATCH, BenchNoop))?;
        Ok(rounded(BATCH as f64 / quantile(&times, 0.5)))
    }

    fn map(&self, engine: &dyn Engine) -> Result<f64, BenchError> {
        const TASKS: usize = 5 * BATCH;
        let times = self.times(MIN_TRIES..=usize::MAX, || {
            let begun = Instant::now();
            for result in engine.map((0..TASKS).map(|_| BenchNoop)) {
                result?;
            }
            Ok(begun.elapsed())
        })?;
        Ok(rounded(TASKS as f64 / quantile(&times, 0.5)))
    }

    fn payload(&self, engine: &dyn Engine, size_bytes: usize) -> Result<Payload, BenchError> {
        self.show(format!("payloads: {} KiB", size_bytes >> 10));
        let text = "x".repeat(size_bytes);
        let times = self.times(MIN_TRIES..=usize::MAX, || {
            let task = Echo(text.clone());
            let begun = Instant::now();
            engine.submit(task).result()?;
            Ok(begun.elapsed())
        })?;
        let mib = 2.0 * size_bytes as f64 / (1 << 20) as f64;
        Ok(Payload { size_bytes, mib_per_s: rounded(mib / quantile(&times, 0.5)) })
    }

    /// How much longer a task takes in a process than on a thread, in seconds: several measurements for
    /// each length of tasks.
    fn extras(&self, modes: PerMode<&dyn Engine>) -> Result<[Vec<f64>; 3], BenchError> {
        let at_once = self.workers.min(num_cpus::get());
        let time = self.effort.time / REPETITIONS as u32;
        let works = LENGTHS.map(Spin::lasting);
        let mut extras = LENGTHS.map(|_| Vec::new());
        // The lengths are measured in turn, so that a disturbance affects all of them.
        for repetition in 1..=REPETITIONS {
            for ((length, work), extras) in LENGTHS.iter().zip(works).zip(&mut extras) {
                self.show(format!("tasks of {length:?}: {repetition} of {REPETITIONS}"));
                let tasks = match length.is_zero() {
                    true => BATCH,
                    false => at_once * (BATCH_TIME.as_secs_f64() / length.as_secs_f64()) as usize,
                };
                let mut threads_first = false;
                // Short batches that alternate, so that a disturbance affects both.
                let longer = self.values(COMPARISONS..=usize::MAX, time, || {
                    threads_first = !threads_first;
                    let took = |engine| batch(engine, tasks, work).map(|time| time.as_secs_f64());
                    let (on_threads, in_processes) = match threads_first {
                        true => (took(modes.threads)?, took(modes.processes)?),
                        false => {
                            let in_processes = took(modes.processes)?;
                            (took(modes.threads)?, in_processes)
                        }
                    };
                    Ok(in_processes - on_threads)
                })?;
                extras.push(quantile(&longer, 0.5) * at_once as f64 / tasks as f64);
            }
        }
        Ok(extras)
    }
}

/// The CPU time of all workers that have ended so far.
fn of_workers() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Duration::ZERO };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}

fn builder(workers: usize) -> Builder {
    // The output of workers that die on purpose is discarded.
    crate::cli::pool().workers(workers).worker_program_beside("worker").on_output(|_| {})
}

/// The duration of a batch of tasks, which are submitted at once and awaited as they complete.
fn batch<T: procession::Task + Copy>(
    engine: &dyn Engine,
    tasks: usize,
    task: T,
) -> Result<Duration, BenchError> {
    let begun = Instant::now();
    for future in as_completed((0..tasks).map(|_| engine.submit(task))) {
        future.result()?;
    }
    Ok(begun.elapsed())
}

/// A quantile of sorted values.
fn quantile(times: &[f64], share: f64) -> f64 {
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

fn range_ms(times: &[f64]) -> MedianAndMax {
    let ms = |share| rounded(quantile(times, share) * 1e3);
    MedianAndMax { median: ms(0.5), longest: ms(1.0) }
}
