//! [`TaskJournal`]: what a worker writes into its journal about its tasks. Without the feature `journal`
//! there is none.
//!
//! ```text
//!   runner ── begin, end ──► RunnerLane: the running task, sums of short ones ──► lines of long and failed tasks
//!   flusher thread, every tenth of a second while there is work ──────────► begins of tasks that still run,
//!                                                                           sums
//! ```
//!
//! A short task costs two uncontended locks and no system call. The number of lines is bounded: see
//! [`Budget`].

#[cfg(not(feature = "journal"))]
pub(super) use off::{RunnerLane, TaskJournal};
#[cfg(feature = "journal")]
pub(super) use on::{RunnerLane, TaskJournal};

#[cfg(feature = "journal")]
mod on {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
    use std::thread::{self, Thread};
    use std::time::Duration;
    use std::{env, fmt, path, process};

    use procession_journal::{
        FORMAT, Journal, Level, LogEvent, NamedTask, TaskEnd, TaskSum, TaskSums,
    };

    use crate::journal::VARIABLE;
    use crate::task::{SetLabel, TaskId};
    use crate::transport::{self, Marking, ReplyBuffer, Status};
    use procession_os::threads::ThreadSpec;

    /// Interval of the flusher, and the shortest period of a sum, in nanoseconds.
    const TICK: u64 = 100_000_000;
    /// The longest period of a sum, in nanoseconds.
    const LONGEST_PERIOD: u64 = 5_000_000_000;
    /// The number of sums after which the period of a sum is doubled.
    const SUMS_PER_PERIOD: u64 = 2_000;
    /// A task that runs for this long at a tick has a line for its begin, in nanoseconds.
    const LONG: u64 = 20_000_000;
    /// Tasks of this duration have lines of their own at first, in nanoseconds.
    const OWN_LINE: u64 = 1_000_000;
    /// The number of lines after which a task must run twice as long to have one.
    const LINES_PER_LIMIT: u64 = 10_000;
    /// The number of failed tasks, and of labels, that have lines of their own.
    const MOST_LINES: u64 = 10_000;

    /// The journal of this process.
    pub(in super::super) struct TaskJournal {
        shared: Arc<Shared>,
        lanes: Arc<Lanes>,
        flusher: Mutex<Option<thread::JoinHandle<()>>>,
    }

    type Lanes = Mutex<Vec<Arc<RunnerLane>>>;

    /// What all lanes use.
    struct Shared {
        journal: Journal,
        budget: Budget,
        /// Whether the flusher is awake, or will be.
        is_awake: AtomicBool,
        has_ended: AtomicBool,
        flusher: OnceLock<Thread>,
    }

    /// Bounds the lines of a process. The bound of lines for tasks grows with the logarithm of the longest
    /// task.
    #[derive(Default)]
    struct Budget {
        /// Number of lines for tasks that ended well.
        lines: AtomicU64,
        failed: AtomicU64,
        labels: AtomicU64,
        sums: AtomicU64,
    }

    impl Budget {
        /// Whether a task that ended well after this many nanoseconds has a line of its own.
        fn has_line(&self, ran_for: u64) -> bool {
            let has_line = ran_for >= self.limit();
            self.lines.fetch_add(u64::from(has_line), Ordering::Relaxed);
            has_line
        }

        /// The shortest task that has a line of its own, in nanoseconds.
        fn limit(&self) -> u64 {
            let limits = self.lines.load(Ordering::Relaxed) / LINES_PER_LIMIT;
            OWN_LINE << limits.min(40)
        }

        fn has_failed_line(&self) -> bool {
            self.failed.load(Ordering::Relaxed) < MOST_LINES
                && self.failed.fetch_add(1, Ordering::Relaxed) < MOST_LINES
        }

        fn has_label_line(&self) -> bool {
            self.labels.load(Ordering::Relaxed) < MOST_LINES
                && self.labels.fetch_add(1, Ordering::Relaxed) < MOST_LINES
        }

        /// The shortest period of a sum, in nanoseconds.
        fn period(&self) -> u64 {
            let doublings = self.sums.load(Ordering::Relaxed) / SUMS_PER_PERIOD;
            (TICK << doublings.min(10)).min(LONGEST_PERIOD)
        }
    }

    /// One runner of the worker.
    pub(in super::super) struct RunnerLane {
        shared: Arc<Shared>,
        slot: usize,
        state: Mutex<LaneState>,
    }

    #[derive(Default)]
    struct LaneState {
        is_running: bool,
        /// The task that runs, or ran last.
        id: u64,
        name: String,
        label: Option<String>,
        attempt: u32,
        /// In nanoseconds, as all times here.
        began: u64,
        /// Whether its begin has a line.
        is_recorded: bool,
        sums: Vec<TaskSum>,
        /// Begin of the first and end of the last task in the sums.
        period: (u64, u64),
    }

    impl TaskJournal {
        /// Opens the journal if the coordinator keeps one. An error is printed, and the worker goes on
        /// without a journal.
        pub(in super::super) fn open(
            marking: Marking,
            build: &str,
            stack: Option<usize>,
        ) -> Option<Self> {
            let value = env::var_os(VARIABLE)?;
            // A pool inside a task inherits the variable, which is not of that pool.
            let prefix = format!("{}:", marking.coordinator);
            let dir = value.as_bytes().strip_prefix(prefix.as_bytes())?;
            let dir = path::Path::new(OsStr::from_bytes(dir));
            let journal = Journal::worker(dir, marking.worker, process::id());
            let opened = journal.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                format!("{error}: {}", cause.unwrap_or_default())
            });
            match opened.and_then(|journal| Self::start(journal, build, stack)) {
                Ok(journal) => Some(journal),
                Err(error) => {
                    let text = format!("worker: {error}; this worker keeps no journal\n");
                    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
                    None
                }
            }
        }

        fn start(journal: Journal, build: &str, stack: Option<usize>) -> Result<Self, String> {
            let args = env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
            let (version, build) = (env!("CARGO_PKG_VERSION").to_owned(), build.to_owned());
            journal.record(Level::Debug, LogEvent::Start { version, build, args, format: FORMAT });
            let shared = Arc::new(Shared {
                journal,
                budget: Budget::default(),
                is_awake: AtomicBool::new(false),
                has_ended: AtomicBool::new(false),
                flusher: OnceLock::new(),
            });
            let lanes = Arc::<Lanes>::default();
            let (shares, flushes) = (Arc::clone(&shared), Arc::clone(&lanes));
            let spec = ThreadSpec::new("journal").with_stack(stack);
            let flusher = spec
                .start(move || shares.flush_until_the_end(&flushes))
                .map_err(|error| format!("cannot start a thread: {error}"))?;
            let _ = shared.flusher.set(flusher.thread().clone());
            Ok(Self { shared, lanes, flusher: Mutex::new(Some(flusher)) })
        }

        /// A lane for one more runner.
        pub(in super::super) fn lane(&self) -> Arc<RunnerLane> {
            let mut lanes = lock(&self.lanes);
            let (shared, slot) = (Arc::clone(&self.shared), lanes.len());
            let lane = Arc::new(RunnerLane { shared, slot, state: Mutex::default() });
            lanes.push(Arc::clone(&lane));
            lane
        }

        /// Writes what is left. No task runs any more.
        pub(in super::super) fn end(&self) {
            self.shared.has_ended.store(true, Ordering::SeqCst);
            if let Some(flusher) = lock(&self.flusher).take() {
                flusher.thread().unpark();
                let _ = flusher.join();
            }
            self.shared.flush(&self.lanes, u64::MAX);
        }
    }

    impl Shared {
        fn flush_until_the_end(&self, lanes: &Lanes) {
            while !self.has_ended.load(Ordering::SeqCst) {
                if !self.is_awake.load(Ordering::SeqCst) {
                    thread::park();
                    continue;
                }
                thread::park_timeout(Duration::from_nanos(TICK));
                // Cleared before the lanes are read: a task that begins meanwhile sets it again.
                self.is_awake.store(false, Ordering::SeqCst);
                if self.flush(lanes, transport::now()) {
                    self.is_awake.store(true, Ordering::SeqCst);
                }
            }
        }

        /// Writes what is due in all lanes. Returns whether there is more to come.
        fn flush(&self, lanes: &Lanes, now: u64) -> bool {
            let lanes = lock(lanes).clone();
            // Every lane: `any` would stop at the first.
            lanes.iter().filter(|lane| lane.flush(now)).count() > 0
        }

        fn wake_up(&self) {
            if !self.is_awake.load(Ordering::Relaxed)
                && !self.is_awake.swap(true, Ordering::SeqCst)
                && let Some(flusher) = self.flusher.get()
            {
                flusher.unpark();
            }
        }
    }

    impl RunnerLane {
        /// Notes that a task begins.
        pub(in super::super) fn begin(&self, id: TaskId, name: &str, attempt: u32, now: u64) {
            let mut state = lock(&self.state);
            if state.name != name {
                name.clone_into(&mut state.name);
            }
            (state.is_running, state.is_recorded) = (true, false);
            (state.id, state.attempt, state.began) = (id.0, attempt, now);
            state.label = None;
            drop(state);
            self.shared.wake_up();
        }

        /// Notes that it has ended: at once, with a line, if it was long or failed. Returns whether there is
        /// a line.
        pub(in super::super) fn end(
            &self,
            status: Status,
            ran_for: Duration,
            reply_buffer: &ReplyBuffer,
        ) -> bool {
            let shared = &*self.shared;
            let ran_for = u64::try_from(ran_for.as_nanos()).unwrap_or(u64::MAX);
            let mut state = lock(&self.state);
            state.is_running = false;
            let bytes = reply_buffer.data.len() as u64;
            let has_line = match status {
                // Another attempt may have a line, which this one must follow.
                Status::Ok => {
                    shared.budget.has_line(ran_for) || state.is_recorded || state.attempt > 1
                }
                _ => state.is_recorded || shared.budget.has_failed_line(),
            };
            if !has_line {
                state.add_to_sum(status, ran_for, bytes);
                return false;
            }
            state.write_sums(shared, self.slot);
            let error = reply_buffer.error(status);
            let event = LogEvent::Task(TaskEnd {
                task: state.task_name(),
                slot: Some(self.slot),
                status: if status == Status::Ok { "ok" } else { "error" }.to_owned(),
                bytes: (status == Status::Ok).then_some(bytes),
                elapsed_ms: ms(ran_for),
                attempt: state.attempt,
                error: error.map(|error| error.chars().take(MAX_ERROR).collect()),
                ..TaskEnd::default()
            });
            let level = if status == Status::Ok { Level::Info } else { Level::Error };
            shared.journal.record(level, event);
            true
        }

        /// Writes the begin of a long task, and sums that are due. Returns whether there is more to come.
        fn flush(&self, now: u64) -> bool {
            let shared = &*self.shared;
            let mut state = lock(&self.state);
            let is_long = now.saturating_sub(state.began) >= shared.budget.limit().max(LONG);
            if state.is_running && !state.is_recorded && is_long {
                state.write_begin(shared, self.slot);
            }
            let period = now.saturating_sub(state.period.0);
            let is_idle = !state.is_running && now.saturating_sub(state.period.1) >= TICK;
            if is_idle || period >= shared.budget.period() {
                state.write_sums(shared, self.slot);
            }
            // A long task whose begin has a line will end without the flusher.
            (state.is_running && !state.is_recorded) || !state.sums.is_empty()
        }
    }

    /// The longest error in a line, in characters.
    const MAX_ERROR: usize = 2_000;

    impl LaneState {
        fn task_name(&self) -> NamedTask {
            let (name, label) = (Some(self.name.clone()), self.label.clone());
            NamedTask { id: Some(self.id), name, label }
        }

        fn add_to_sum(&mut self, status: Status, ran_for: u64, bytes: u64) {
            if self.sums.is_empty() {
                self.period.0 = self.began;
            }
            self.period.1 = self.began.saturating_add(ran_for);
            let index = self.sums.iter().position(|sum| sum.name == self.name);
            let index = index.unwrap_or_else(|| {
                self.sums.push(TaskSum { name: self.name.clone(), ..TaskSum::default() });
                self.sums.len() - 1
            });
            let sum = &mut self.sums[index];
            sum.count += 1;
            sum.failed += u64::from(status != Status::Ok);
            // The sum of rounded numbers is not round.
            sum.run_ms = ((sum.run_ms + ms(ran_for)) * 1e3).round() / 1e3;
            sum.max_ms = sum.max_ms.max(ms(ran_for));
            sum.bytes += bytes;
        }

        fn write_sums(&mut self, shared: &Shared, slot: usize) {
            if self.sums.is_empty() {
                return;
            }
            shared.budget.sums.fetch_add(1, Ordering::Relaxed);
            let (begin, end) = self.period;
            let now = transport::now();
            shared.journal.record(
                Level::Info,
                LogEvent::Tasks(TaskSums {
                    slot,
                    period_ms: ms(end.saturating_sub(begin)),
                    late_ms: ms(now.saturating_sub(end)),
                    tasks: std::mem::take(&mut self.sums),
                }),
            );
        }

        fn write_begin(&mut self, shared: &Shared, slot: usize) {
            self.write_sums(shared, slot);
            self.is_recorded = true;
            let late_ms = ms(transport::now().saturating_sub(self.began));
            let (code, task, run) = (String::new(), self.task_name(), self.attempt);
            let event = LogEvent::TaskStarted { code, task, late_ms, slot, run };
            shared.journal.record(Level::Debug, event);
        }
    }

    impl SetLabel for RunnerLane {
        fn set_label(&self, task: TaskId, label: &dyn fmt::Display) {
            let shared = &*self.shared;
            let label: String = label.to_string().chars().take(MAX_LABEL).collect();
            let mut state = lock(&self.state);
            // A thread of an earlier task may still have its context.
            if !state.is_running || state.id != task.0 {
                return;
            }
            state.label = Some(label);
            if state.is_recorded || shared.budget.has_label_line() {
                // At once, since the task may end this process.
                state.write_begin(shared, self.slot);
            }
        }
    }

    /// The longest label, in characters.
    const MAX_LABEL: usize = 200;

    impl fmt::Debug for RunnerLane {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("RunnerLane").field("slot", &self.slot).finish_non_exhaustive()
        }
    }

    fn ms(nanos: u64) -> f64 {
        // To a microsecond, which keeps lines short.
        (nanos / 1000) as f64 / 1e3
    }

    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(not(feature = "journal"))]
mod off {
    use std::fmt;
    use std::sync::Arc;
    use std::time::Duration;

    use crate::task::{SetLabel, TaskId};
    use crate::transport::{Marking, ReplyBuffer, Status};

    /// There is none.
    pub(in super::super) enum TaskJournal {}

    #[derive(Debug)]
    pub(in super::super) enum RunnerLane {}

    impl TaskJournal {
        pub(in super::super) fn open(_: Marking, _: &str, _: Option<usize>) -> Option<Self> {
            None
        }

        pub(in super::super) fn lane(&self) -> Arc<RunnerLane> {
            match *self {}
        }

        pub(in super::super) fn end(&self) {
            match *self {}
        }
    }

    impl RunnerLane {
        pub(in super::super) fn begin(&self, _: TaskId, _: &str, _: u32, _: u64) {
            match *self {}
        }

        pub(in super::super) fn end(&self, _: Status, _: Duration, _: &ReplyBuffer) -> bool {
            match *self {}
        }
    }

    impl SetLabel for RunnerLane {
        fn set_label(&self, _: TaskId, _: &dyn fmt::Display) {
            match *self {}
        }
    }
}
