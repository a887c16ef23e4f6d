//! [`Feed`]: the history that the dashboard shows, and for each connected page how much of it the page has.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tokio::sync::watch;

use crate::gauges::{GaugeHistory, Gauges};
use crate::picture::Picture;
use procession_journal as journal;
use procession_journal::now;
use procession_journal::{LogEntry, Merge, ReadWarnings, RunDir, RunHistory};

/// Takes a sample of a pool.
type Sampler = Box<dyn Fn() -> Gauges + Send + Sync>;

/// Maximum number of tasks of a history without logs. The feed then begins a new history.
const MAX_SPANS: usize = 20_000;

/// Maximum number of lines that are read while the history is locked. The pages wait for the lock.
const MAX_LINES: usize = 5_000;

/// The current history.
pub(crate) struct Feed {
    state: Mutex<FeedState>,
    source: Mutex<FeedSource>,
    /// Number of changes.
    changes: watch::Sender<u64>,
    viewers: Mutex<Viewers>,
    /// Of a pool.
    sampler: Option<Sampler>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

/// The pages that are connected.
#[derive(Default)]
struct Viewers {
    /// By number of the viewer: the position up to which it is updated.
    positions: Vec<(u64, Option<FeedPosition>)>,
    next: u64,
}

/// The source of a history.
#[derive(Default)]
pub(crate) enum FeedSource {
    /// Entries are added by [`Feed::add`].
    #[default]
    Direct,
    /// The logs of the only run that will keep them in this directory.
    Expected(PathBuf),
    Logs(Box<Merge>, ReadWarnings),
}

#[derive(Default)]
struct FeedState {
    name: String,
    /// Number of tasks in the histories of this source that were discarded.
    discarded: usize,
    history: RunHistory,
    /// Number of the history.
    number: u64,
    is_over: bool,
    gauges: GaugeHistory,
}

/// A position in the feed, up to which a page is updated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FeedPosition {
    number: u64,
    /// Number of times that spans were joined.
    joins: u64,
    revision: u64,
    /// The begin of the history, which is the origin of all times on the page.
    begin: i64,
    /// The second that the history has reached.
    second: i64,
    /// Number of the sample of the pool.
    sample: u64,
    is_over: bool,
}

/// What is sent to a page.
#[derive(Serialize)]
struct PictureUpdate {
    /// Whether the page must discard all earlier updates.
    anew: bool,
    #[serde(flatten)]
    picture: Picture,
}

/// A connected page, until it is dropped.
pub(crate) struct Viewer<'f> {
    feed: &'f Feed,
    number: u64,
}

impl Feed {
    pub(crate) fn new(sampler: Option<Sampler>) -> Self {
        Self {
            // The name until there is a history.
            state: Mutex::new(FeedState { name: "procession".to_owned(), ..FeedState::default() }),
            source: Mutex::default(),
            changes: watch::Sender::new(0),
            viewers: Mutex::default(),
            sampler,
        }
    }

    fn state(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self) -> MutexGuard<'_, FeedSource> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Begins a new history.
    pub(crate) fn begin(&self, name: &str, source: FeedSource) {
        *self.source() = source;
        let mut state = self.state();
        let (number, gauges) = (state.number + 1, std::mem::take(&mut state.gauges));
        *state = FeedState { name: name.to_owned(), number, gauges, ..FeedState::default() };
        drop(state);
        self.notify();
    }

    /// Reads lines that were added to the logs, up to [`MAX_LINES`]. Returns whether there may be more.
    pub(crate) fn read_some(&self) -> bool {
        self.read(false)
    }

    /// Reads the lines that were added to the logs, at most until the deadline.
    pub(crate) fn read_until(&self, deadline: Instant) {
        while self.read(false) && Instant::now() < deadline {}
    }

    fn read(&self, is_over: bool) -> bool {
        let mut source = self.source();
        if let FeedSource::Expected(dir) = &*source
            && let Ok(run) = RunDir::find(dir, None)
            && let Ok(merge) = Merge::open(&run.path(), is_over)
        {
            *source = FeedSource::Logs(Box::new(merge), ReadWarnings::default());
        }
        let FeedSource::Logs(merge, warnings) = &mut *source else { return false };
        // After an error the files are read again next time.
        let _ = merge.refresh(is_over);
        let mut state = self.state();
        let before = state.history.revision;
        let has_more = journal::read_some(merge, &mut state.history, warnings, MAX_LINES);
        if state.history.revision != before {
            drop(state);
            self.notify();
        }
        has_more
    }

    /// Adds the present numbers of the pool, if there is one.
    pub(crate) fn take_sample(&self) {
        if let Some(sampler) = &self.sampler {
            // Not under the lock: it locks the pool.
            let (at, now) = (Instant::now(), sampler());
            self.state().gauges.add(at, now);
            self.notify();
        }
    }

    /// The present numbers of the pool, if there is one.
    pub(crate) fn gauges(&self) -> Option<Gauges> {
        self.sampler.as_ref().map(|sampler| sampler())
    }

    /// Adds an entry. Each task counts, even of the same code.
    pub(crate) fn add(&self, entry: LogEntry) {
        let mut state = self.state();
        if state.history.spans.len() >= MAX_SPANS {
            state.discarded += state.history.spans.len();
            state.history = RunHistory::default();
            state.number += 1;
        }
        state.history.counts_every_task = true;
        state.history.add(entry);
        drop(state);
        self.notify();
    }

    /// Reads the rest of the logs, to which nothing more will be written, if a page is connected.
    pub(crate) fn read_to_the_end(&self) {
        if self.viewers() > 0 {
            while self.read(true) {}
        }
    }

    /// Ends the history: no entry will follow.
    pub(crate) fn end(&self) {
        self.take_sample();
        self.read_to_the_end();
        let is_direct = matches!(*self.source(), FeedSource::Direct);
        let mut state = self.state();
        state.history.close();
        if is_direct {
            // These entries do not record the ends of processes.
            state.history.end_regularly();
        }
        state.is_over = true;
        drop(state);
        self.notify();
    }

    /// The number of connected pages.
    pub(crate) fn viewers(&self) -> usize {
        self.lock_viewers().positions.len()
    }

    /// Whether all connected pages are up to date.
    pub(crate) fn are_viewers_current(&self) -> bool {
        let now = self.state().position();
        self.lock_viewers().positions.iter().all(|(_, position)| *position == Some(now))
    }

    /// Adds a connected page.
    pub(crate) fn viewer(&self) -> Viewer<'_> {
        let mut viewers = self.lock_viewers();
        viewers.next += 1;
        let number = viewers.next;
        viewers.positions.push((number, None));
        Viewer { feed: self, number }
    }

    fn lock_viewers(&self) -> MutexGuard<'_, Viewers> {
        self.viewers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The whole history, for the first view of a page.
    pub(crate) fn picture(&self) -> Picture {
        let mut state = self.state();
        state.extend_to_now();
        let picture = Picture::of(&state.name(), &state.history, state.is_over);
        picture.with_pool(state.gauges.picture())
    }

    /// The changes since a position, as JSON, and the new position; `None` without a change.
    pub(crate) fn update(&self, since: Option<FeedPosition>) -> Option<(String, FeedPosition)> {
        let mut state = self.state();
        state.extend_to_now();
        let now = state.position();
        if since == Some(now) {
            return None;
        }
        let known =
            since.filter(|position| (position.number, position.joins) == (now.number, now.joins));
        let same_origin = known.filter(|position| position.begin == now.begin);
        let revision = same_origin.map_or(0, |position| position.revision);
        let picture = Picture::since(revision, &state.name(), &state.history, now.is_over);
        let picture = picture.with_pool(state.gauges.picture());
        drop(state);
        let json = serde_json::to_string(&PictureUpdate { anew: known.is_none(), picture }).ok()?;
        Some((json, now))
    }
}

impl FeedState {
    fn name(&self) -> String {
        match self.discarded {
            0 => self.name.clone(),
            discarded => format!("{}, after the first {discarded}", self.name),
        }
    }

    fn position(&self) -> FeedPosition {
        let Self { history, number, is_over, gauges, .. } = self;
        let (begin, end) = history.period.unwrap_or_default();
        let second = (end - begin) / 1_000_000;
        FeedPosition {
            number: *number,
            joins: history.joins,
            sample: gauges.number,
            revision: history.revision,
            begin,
            second,
            is_over: *is_over,
        }
    }

    /// Extends running tasks to the present time.
    fn extend_to_now(&mut self) {
        if !self.is_over {
            self.history.extend_to(now().as_microsecond());
        }
    }
}

impl FeedPosition {
    /// Whether nothing more will follow.
    pub(crate) fn is_end(self) -> bool {
        self.is_over
    }
}

impl Viewer<'_> {
    /// Records that the page is updated up to this position.
    pub(crate) fn advance(&self, position: FeedPosition) {
        let mut viewers = self.feed.lock_viewers();
        let mut positions = viewers.positions.iter_mut();
        if let Some(own) = positions.find(|(number, _)| *number == self.number) {
            own.1 = Some(position);
        }
    }
}

impl Drop for Viewer<'_> {
    fn drop(&mut self) {
        self.feed.lock_viewers().positions.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use procession_journal::{Level, ProcessKind};

    fn task(second: i64) -> LogEntry {
        let event = json!({"event": "task", "code": "BR", "slot": 0, "status": "ok",
            "elapsed_ms": 2000.0, "attempt": 1});
        LogEntry {
            ts: jiff::Timestamp::from_second(second).unwrap(),
            level: Level::Info,
            process: ProcessKind::Other("LOCAL".to_owned()),
            worker: None,
            pid: 7,
            own_cpu_s: None,
            event: serde_json::from_value(event).unwrap(),
            extra: Map::new(),
        }
    }

    #[test]
    fn a_history_with_too_many_tasks_is_replaced_by_a_new_one() {
        let feed = Feed::new(None);
        feed.begin("serve", FeedSource::Direct);
        for _ in 0..MAX_SPANS {
            feed.add(task(10));
        }
        let (json, position) = feed.update(None).unwrap();
        assert!(json.contains(r#""name":"serve","#) && json.contains(r#""ok":20000,"#));
        assert!(feed.update(Some(position)).is_none());
        feed.add(task(11));
        let (json, _) = feed.update(Some(position)).unwrap();
        assert!(json.contains(r#""anew":true,"name":"serve, after the first 20000""#), "{json}");
        assert!(json.contains(r#""ok":1,"#), "{json}");
    }

    #[test]
    fn a_page_does_not_wait_until_all_lines_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let line = serde_json::to_string(&task(10)).unwrap() + "\n";
        std::fs::write(dir.path().join("x.jsonl"), line.repeat(2 * MAX_LINES + 1)).unwrap();
        let feed = Feed::new(None);
        let merge = Merge::open(dir.path(), false).unwrap();
        feed.begin("run", FeedSource::Logs(Box::new(merge), ReadWarnings::default()));
        let read = || feed.state().history.spans.len();
        assert!(feed.read_some());
        assert_eq!(read(), MAX_LINES);
        feed.read_until(Instant::now() + std::time::Duration::from_secs(60));
        assert_eq!(read(), 2 * MAX_LINES + 1);
        assert!(!feed.read_some());
    }

    #[test]
    fn a_page_gets_all_bars_again_when_an_entry_changes_the_begin() {
        let feed = Feed::new(None);
        feed.begin("serve", FeedSource::Direct);
        feed.add(task(10));
        let (_, position) = feed.update(None).unwrap();
        feed.add(task(9));
        let (json, _) = feed.update(Some(position)).unwrap();
        let picture: serde_json::Value = serde_json::from_str(&json).unwrap();
        let begins = picture["bars"].as_array().unwrap().iter().map(|bar| bar["b"].as_f64());
        assert_eq!(begins.collect::<Vec<_>>(), [Some(1000.0), Some(0.0)]);
    }
}
