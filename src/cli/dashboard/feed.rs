//! The story so far, and who wants to hear how it goes on.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use super::super::timeline::picture::Picture;
use procession_journal as journal;
use procession_journal::entry::now;
use procession_journal::{LogEntry, Merge, ReadWarnings, RunDir, RunHistory};

/// A story that is told for ever begins anew after so many tasks, and says so.
const LONGEST: usize = 20_000;

/// The story so far.
pub(super) struct Feed {
    telling: Mutex<Telling>,
    reading: Mutex<Source>,
    /// Counts the changes.
    changed: watch::Sender<u64>,
    /// What each page has been told.
    viewers: Mutex<Viewers>,
}

#[derive(Default)]
struct Viewers {
    told: Vec<(u64, Option<Told>)>,
    next: u64,
}

/// Where a story comes from.
#[derive(Default)]
pub(super) enum Source {
    /// It is told.
    #[default]
    Told,
    /// The logs of the only run that will keep them in this directory.
    Expected(PathBuf),
    Logs(Box<Merge>, ReadWarnings),
}

#[derive(Default)]
struct Telling {
    name: String,
    /// How many tasks were told of before this story began.
    before: usize,
    history: RunHistory,
    /// Which story this is.
    number: u64,
    is_over: bool,
}

/// What a page has been told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    number: u64,
    revision: u64,
    /// When the story began, from which all times in it count, and the second that it has reached.
    begin: i64,
    second: i64,
    is_over: bool,
}

/// What a page is told.
#[derive(Serialize)]
struct News {
    /// Whether all that was told before is to be forgotten.
    anew: bool,
    #[serde(flatten)]
    picture: Picture,
}

/// Somebody who looks, until dropped.
pub(super) struct Viewer<'f> {
    feed: &'f Feed,
    number: u64,
}

impl Feed {
    pub(super) fn new() -> Self {
        Self {
            // Until there is a story.
            telling: Mutex::new(Telling { name: "procession".to_owned(), ..Telling::default() }),
            reading: Mutex::default(),
            changed: watch::Sender::new(0),
            viewers: Mutex::default(),
        }
    }

    fn telling(&self) -> MutexGuard<'_, Telling> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_changed(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Begins another story.
    pub(super) fn begin(&self, name: &str, source: Source) {
        *self.reading() = source;
        let mut telling = self.telling();
        let number = telling.number + 1;
        *telling = Telling { name: name.to_owned(), number, ..Telling::default() };
        drop(telling);
        self.has_changed();
    }

    /// Reads what there is to read.
    pub(super) fn catch_up(&self) {
        self.read(false);
    }

    fn read(&self, is_over: bool) {
        let mut reading = self.reading();
        if let Source::Expected(dir) = &*reading
            && let Ok(run) = RunDir::find(dir, None)
            && let Ok(merge) = Merge::open(&run.path(), is_over)
        {
            *reading = Source::Logs(Box::new(merge), ReadWarnings::default());
        }
        let Source::Logs(merge, warnings) = &mut *reading else { return };
        // What cannot be read now may be later.
        let _ = merge.refresh(is_over);
        let mut telling = self.telling();
        let before = telling.history.revision;
        journal::read_available(merge, &mut telling.history, warnings);
        if telling.history.revision != before {
            drop(telling);
            self.has_changed();
        }
    }

    fn reading(&self) -> MutexGuard<'_, Source> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what happened; each task counts, also of the same code.
    pub(super) fn tell(&self, entry: LogEntry) {
        let mut telling = self.telling();
        if telling.history.spans.len() >= LONGEST {
            telling.before += telling.history.spans.len();
            telling.history = RunHistory::default();
            telling.number += 1;
        }
        telling.history.counts_every_task = true;
        telling.history.add(entry);
        drop(telling);
        self.has_changed();
    }

    /// Reads what is left, if somebody wants to know, since nothing more will be written.
    pub(super) fn read_to_the_end(&self) {
        if self.viewers() > 0 {
            self.read(true);
        }
    }

    /// Nothing more will come.
    pub(super) fn end(&self) {
        self.read_to_the_end();
        let is_told = matches!(*self.reading(), Source::Told);
        let mut telling = self.telling();
        telling.history.close();
        if is_told {
            // Who tells of others tells nothing of their end.
            telling.history.end_regularly();
        }
        telling.is_over = true;
        drop(telling);
        self.has_changed();
    }

    pub(super) fn viewers(&self) -> usize {
        self.lock_viewers().told.len()
    }

    /// Whether all who look have been told all that there is.
    pub(super) fn is_told_to_all(&self) -> bool {
        let now = self.telling().told();
        self.lock_viewers().told.iter().all(|(_, told)| *told == Some(now))
    }

    /// Notes that somebody looks.
    pub(super) fn viewer(&self) -> Viewer<'_> {
        let mut viewers = self.lock_viewers();
        viewers.next += 1;
        let number = viewers.next;
        viewers.told.push((number, None));
        Viewer { feed: self, number }
    }

    fn lock_viewers(&self) -> MutexGuard<'_, Viewers> {
        self.viewers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// All that there is, as JSON, for a page that begins with it.
    pub(super) fn picture(&self) -> Picture {
        let mut telling = self.telling();
        telling.look_at_the_clock();
        Picture::of(&telling.name(), &telling.history, telling.is_over)
    }

    /// What is new to somebody who was told so much, as JSON, and how much that is; `None` if
    /// nothing is.
    pub(super) fn news(&self, told: Option<Told>) -> Option<(String, Told)> {
        let mut telling = self.telling();
        telling.look_at_the_clock();
        let now = telling.told();
        if told == Some(now) {
            return None;
        }
        let known = told.filter(|told| told.number == now.number);
        let since = known.filter(|told| told.begin == now.begin).map_or(0, |told| told.revision);
        let picture = Picture::since(since, &telling.name(), &telling.history, now.is_over);
        drop(telling);
        let json = serde_json::to_string(&News { anew: known.is_none(), picture }).ok()?;
        Some((json, now))
    }
}

impl Telling {
    fn name(&self) -> String {
        match self.before {
            0 => self.name.clone(),
            before => format!("{}, after the first {before}", self.name),
        }
    }

    /// All that there is.
    fn told(&self) -> Told {
        let Self { history, number, is_over, .. } = self;
        let (begin, end) = history.period.unwrap_or_default();
        let second = (end - begin) / 1_000_000;
        Told { number: *number, revision: history.revision, begin, second, is_over: *is_over }
    }

    /// What runs has run on since the last word of it.
    fn look_at_the_clock(&mut self) {
        if !self.is_over {
            self.history.extend_to(now().as_microsecond());
        }
    }
}

impl Told {
    /// Whether nothing more will come.
    pub(super) fn is_all(self) -> bool {
        self.is_over
    }
}

impl Viewer<'_> {
    /// Notes what was told.
    pub(super) fn was_told(&self, told: Told) {
        let mut viewers = self.feed.lock_viewers();
        if let Some(own) = viewers.told.iter_mut().find(|(number, _)| *number == self.number) {
            own.1 = Some(told);
        }
    }
}

impl Drop for Viewer<'_> {
    fn drop(&mut self) {
        self.feed.lock_viewers().told.retain(|(number, _)| *number != self.number);
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
            event: serde_json::from_value(event).unwrap(),
            extra: Map::new(),
        }
    }

    #[test]
    fn a_story_without_end_begins_anew_and_says_so() {
        let feed = Feed::new();
        feed.begin("serve", Source::Told);
        for _ in 0..LONGEST {
            feed.tell(task(10));
        }
        let (json, told) = feed.news(None).unwrap();
        assert!(json.contains(r#""name":"serve","#) && json.contains(r#""ok":20000,"#));
        assert!(feed.news(Some(told)).is_none());
        feed.tell(task(11));
        let (json, _) = feed.news(Some(told)).unwrap();
        assert!(json.contains(r#""anew":true,"name":"serve, after the first 20000""#), "{json}");
        assert!(json.contains(r#""ok":1,"#), "{json}");
    }

    #[test]
    fn whoever_was_told_times_hears_of_all_anew_when_the_beginning_turns_out_earlier() {
        let feed = Feed::new();
        feed.begin("serve", Source::Told);
        feed.tell(task(10));
        let (_, told) = feed.news(None).unwrap();
        feed.tell(task(9));
        let (json, _) = feed.news(Some(told)).unwrap();
        let picture: serde_json::Value = serde_json::from_str(&json).unwrap();
        let begins = picture["bars"].as_array().unwrap().iter().map(|bar| bar["b"].as_f64());
        assert_eq!(begins.collect::<Vec<_>>(), [Some(1000.0), Some(0.0)]);
    }
}
