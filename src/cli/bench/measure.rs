//! The measuring itself: every figure is the median of as many tries as fit into its time.

use std::ops::RangeInclusive;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::figures::{
    Cost, Figures, LONGEST_MS, Modes, Payload, Quantiles, REPETITIONS, Range, rounded,
};
use super::interrupt::{Ended, Interrupt};
use super::tasks::{Die, Nothing, Same, Work};
use crate::cli::bar;
use crate::cli::machine::Machine;
use procession::{
    Builder, Engine, Executor, PoolEvent, ProcessPool, Sequential, ThreadPool, as_completed,
};

/// A median of fewer tries says nothing.
const LEAST: usize = 7;
/// The same of a small difference, in each of its repetitions.
const COMPARISONS: usize = 3;
/// Tasks in one batch of those that do nothing.
const BATCH: usize = 2000;
/// How long a batch of tasks that work should take.
const WORKING: Duration = Duration::from_millis(20);
/// How long it may take until one more worker has started.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look whether somebody wants it to end, where nothing else happens.
const GLANCE: Duration = Duration::from_millis(100);
/// Lengths of tasks that are tried. Of longer ones the cost is lost in what else goes on.
const LENGTHS: [Duration; 3] =
    [Duration::ZERO, Duration::from_micros(100), Duration::from_micros((LONGEST_MS * 1e3) as u64)];

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    is_quick: bool,
    /// For each figure.
    time: Duration,
    /// Pools that are started, workers that die, at most.
    lives: usize,
    sizes: [usize; 3],
}

impl Scale {
    pub(super) const FULL: Self = Self {
        is_quick: false,
        time: Duration::from_millis(2500),
        lives: 100,
        sizes: [64 << 10, 1 << 20, 64 << 20],
    };
    pub(super) const QUICK: Self = Self {
        is_quick: true,
        time: Duration::from_millis(150),
        lives: 10,
        sizes: [64 << 10, 1 << 20, 8 << 20],
    };
}

/// One run.
pub(super) struct Measuring {
    workers: usize,
    scale: Scale,
    interrupt: Interrupt,
    progress: ProgressBar,
}

impl Measuring {
    pub(super) fn new(workers: usize, scale: Scale, interrupt: Interrupt) -> Self {
        let target = bar::target(bar::can_be_drawn());
        let progress = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("measuring {msg}");
        progress.set_style(style.expect("a template that is part of the program"));
        Self { workers, scale, interrupt, progress }
    }

    pub(super) fn all(&self) -> Result<Figures, Ended> {
        let figures = self.figures();
        self.progress.finish_and_clear();
        figures
    }

    fn figures(&self) -> Result<Figures, Ended> {
        let (machine, used_before) = (Machine::watch(), of_workers());
        let start_up = self.start_up()?;
        let (sequential, threads) = (Sequential::new(), ThreadPool::new(self.workers));
        let processes = self.pool(self.workers)?;
        let modes = Modes {
            sequential: &sequential as &dyn Engine,
            threads: &threads,
            processes: &processes,
        };
        let round_trip = self.in_each("a round trip", modes, Self::round_trip)?;
        let submit = self.in_each("submit", modes, Self::submit)?;
        let map = self.in_each("map", modes, Self::map)?;
        let payloads = self.scale.sizes.iter().map(|&size| self.payload(&processes, size));
        let payloads = payloads.collect::<Result<_, _>>()?;
        let extras = self.extras(modes)?;
        // It is the end of some workers.
        drop(processes);
        let respawn = self.respawn()?;
        // All workers have ended: what they used is known.
        let used = of_workers().saturating_sub(used_before);
        // Where SIGCHLD is ignored it is not, and would be taken for the work of others.
        let others = (!used.is_zero()).then(|| machine.share_of_others(used)).flatten();
        let cost = Cost::of(&extras, others);
        let advice = cost.advice(others, self.scale.is_quick);
        Ok(Figures {
            version: env!("CARGO_PKG_VERSION"),
            cpus: num_cpus::get(),
            workers: self.workers,
            quick: self.scale.is_quick,
            start_up_ms: start_up,
            respawn_ms: respawn,
            round_trip_us: round_trip,
            submit_tasks_per_s: submit,
            map_tasks_per_s: map,
            payloads,
            cost,
            others: others.map(rounded),
            debug_build: cfg!(debug_assertions),
            advice,
        })
    }

    fn say(&self, what: impl Into<String>) {
        self.progress.set_message(what.into());
        self.progress.tick();
    }

    fn in_each<T>(
        &self,
        what: &str,
        modes: Modes<&dyn Engine>,
        measure: impl Fn(&Self, &dyn Engine) -> Result<T, Ended>,
    ) -> Result<Modes<T>, Ended> {
        let one = |mode: &str, engine| {
            self.say(format!("{what}: {mode}"));
            measure(self, engine)
        };
        Ok(Modes {
            sequential: one("sequential", modes.sequential)?,
            threads: one("threads", modes.threads)?,
            processes: one("processes", modes.processes)?,
        })
    }

    /// How long it takes, in seconds and in order, each time that it is tried: so often, or until
    /// the time is over.
    fn times(
        &self,
        tries: RangeInclusive<usize>,
        mut once: impl FnMut() -> Result<Duration, Ended>,
    ) -> Result<Vec<f64>, Ended> {
        self.values(tries, self.scale.time, || Ok(once()?.as_secs_f64()))
    }

    /// The same of any value, within this time.
    fn values(
        &self,
        tries: RangeInclusive<usize>,
        time: Duration,
        mut once: impl FnMut() -> Result<f64, Ended>,
    ) -> Result<Vec<f64>, Ended> {
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

    /// A pool all of whose workers have started.
    fn pool(&self, workers: usize) -> Result<ProcessPool, Ended> {
        let (started, starts) = mpsc::channel();
        let pool = builder(workers).on_event_except_starts(move |event| {
            if matches!(event, PoolEvent::WorkerStarted { .. }) {
                let _ = started.send(());
            }
        });
        let pool = pool.build().map_err(|error| Ended::Failed(error.into()))?;
        // If none can start, this tells why.
        pool.submit(Nothing).result()?;
        let (mut ready, mut latest) = (0, Instant::now());
        while ready < workers {
            self.interrupt.check()?;
            if starts.recv_timeout(GLANCE).is_ok() {
                (ready, latest) = (ready + 1, Instant::now());
            } else if latest.elapsed() > PATIENCE {
                let why = anyhow!("only {ready} of {workers} workers have started");
                return Err(Ended::Failed(why));
            }
        }
        Ok(pool)
    }

    fn start_up(&self) -> Result<Range, Ended> {
        self.say("fresh pools");
        let times = self.times(LEAST..=self.scale.lives, || {
            let begun = Instant::now();
            let pool = builder(self.workers).build();
            let pool = pool.map_err(|error| Ended::Failed(error.into()))?;
            pool.submit(Nothing).result()?;
            Ok(begun.elapsed())
        })?;
        Ok(range_ms(&times))
    }

    fn respawn(&self) -> Result<Range, Ended> {
        self.say("deaths");
        let pool = self.pool(1)?;
        let times = self.times(LEAST..=self.scale.lives, || {
            let dies = pool.submit(Die);
            let next = pool.submit(Nothing);
            let _ = dies.result();
            let died = Instant::now();
            next.result()?;
            Ok(died.elapsed())
        })?;
        Ok(range_ms(&times))
    }

    fn round_trip(&self, engine: &dyn Engine) -> Result<Quantiles, Ended> {
        let times = self.times(LEAST..=usize::MAX, || {
            let begun = Instant::now();
            engine.submit(Nothing).result()?;
            Ok(begun.elapsed())
        })?;
        let us = |share| rounded(quantile(&times, share) * 1e6);
        Ok(Quantiles { p50: us(0.5), p99: us(0.99) })
    }

    fn submit(&self, engine: &dyn Engine) -> Result<f64, Ended> {
        let times = self.times(LEAST..=usize::MAX, || batch(engine, BATCH, Nothing))?;
        Ok(rounded(BATCH as f64 / quantile(&times, 0.5)))
    }

    fn map(&self, engine: &dyn Engine) -> Result<f64, Ended> {
        const TASKS: usize = 5 * BATCH;
        let times = self.times(LEAST..=usize::MAX, || {
            let begun = Instant::now();
            for result in engine.map((0..TASKS).map(|_| Nothing)) {
                result?;
            }
            Ok(begun.elapsed())
        })?;
        Ok(rounded(TASKS as f64 / quantile(&times, 0.5)))
    }

    fn payload(&self, engine: &dyn Engine, size_bytes: usize) -> Result<Payload, Ended> {
        self.say(format!("payloads: {} KiB", size_bytes >> 10));
        let text = "x".repeat(size_bytes);
        let times = self.times(LEAST..=usize::MAX, || {
            let task = Same(text.clone());
            let begun = Instant::now();
            engine.submit(task).result()?;
            Ok(begun.elapsed())
        })?;
        let mib = 2.0 * size_bytes as f64 / (1 << 20) as f64;
        Ok(Payload { size_bytes, mib_per_s: rounded(mib / quantile(&times, 0.5)) })
    }

    /// By how many seconds of a CPU a task takes longer in a process than on a thread: for tasks of
    /// each length, of which the shortest do nothing, measured several times.
    fn extras(&self, modes: Modes<&dyn Engine>) -> Result<[Vec<f64>; 3], Ended> {
        let at_once = self.workers.min(num_cpus::get());
        let time = self.scale.time / REPETITIONS as u32;
        let works = LENGTHS.map(Work::lasting);
        let mut extras = LENGTHS.map(|_| Vec::new());
        // In turn, so that what disturbs the machine for a while is seen in each.
        for repetition in 1..=REPETITIONS {
            for ((length, work), extras) in LENGTHS.iter().zip(works).zip(&mut extras) {
                self.say(format!("tasks of {length:?}: {repetition} of {REPETITIONS}"));
                let tasks = match length.is_zero() {
                    true => BATCH,
                    false => at_once * (WORKING.as_secs_f64() / length.as_secs_f64()) as usize,
                };
                let mut threads_first = false;
                // One after the other and in short batches: what disturbs one most often disturbs
                // the next as well.
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
    // What workers have to say while they are measured, and die, is not news.
    crate::cli::pool().workers(workers).worker_program_beside("worker").on_output(|_| {})
}

/// How long so many of these tasks take, submitted at once and taken as they complete.
fn batch<T: procession::Task + Copy>(
    engine: &dyn Engine,
    tasks: usize,
    task: T,
) -> Result<Duration, Ended> {
    let begun = Instant::now();
    for future in as_completed((0..tasks).map(|_| engine.submit(task))) {
        future.result()?;
    }
    Ok(begun.elapsed())
}

/// Of what is in order.
fn quantile(times: &[f64], share: f64) -> f64 {
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

fn range_ms(times: &[f64]) -> Range {
    let ms = |share| rounded(quantile(times, share) * 1e3);
    Range { median: ms(0.5), longest: ms(1.0) }
}
