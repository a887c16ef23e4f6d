//! The story so far, and who wants to hear how it goes on.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use super::super::timeline::picture::Picture;
use crate::journal::{self, Entry, Merge, RunDir, Story, Troubles};

/// A story that is told for ever begins anew after so many tasks.
const LONGEST: usize = 20_000;

/// The story so far.
pub(super) struct Feed {
    telling: Mutex<Telling>,
    reading: Mutex<Source>,
    /// Counts the changes.
    changed: watch::Sender<u64>,
    viewers: AtomicUsize,
}

/// Where a story comes from.
#[derive(Default)]
pub(super) enum Source {
    /// It is told.
    #[default]
    Told,
    /// The logs of the only run that will keep them in this directory.
    Expected(PathBuf),
    Logs(Box<Merge>, Troubles),
}

#[derive(Default)]
struct Telling {
    name: String,
    story: Story,
    /// Which story this is.
    number: u64,
    is_over: bool,
}

/// What a page has been told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    number: u64,
    revision: u64,
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
pub(super) struct Viewer<'f>(&'f Feed);

impl Feed {
    pub(super) fn new() -> Self {
        Self {
            telling: Mutex::default(),
            reading: Mutex::default(),
            changed: watch::Sender::new(0),
            viewers: AtomicUsize::new(0),
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
            *reading = Source::Logs(Box::new(merge), Troubles::default());
        }
        let Source::Logs(merge, troubles) = &mut *reading else { return };
        // What cannot be read now may be later.
        let _ = merge.look_again(is_over);
        let mut telling = self.telling();
        let before = telling.story.revision;
        journal::feed(merge, &mut telling.story, troubles);
        if telling.story.revision != before {
            drop(telling);
            self.has_changed();
        }
    }

    fn reading(&self) -> MutexGuard<'_, Source> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what happened; each task counts, also of the same code.
    pub(super) fn tell(&self, entry: Entry) {
        let mut telling = self.telling();
        if telling.story.spans.len() >= LONGEST {
            telling.story = Story::default();
            telling.number += 1;
        }
        telling.story.counts_each = true;
        telling.story.add(entry);
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
        telling.story.close();
        if is_told {
            // Who tells of others tells nothing of their end.
            telling.story.dismiss();
        }
        telling.is_over = true;
        drop(telling);
        self.has_changed();
    }

    pub(super) fn viewers(&self) -> usize {
        self.viewers.load(Ordering::Acquire)
    }

    /// Notes that somebody looks.
    pub(super) fn viewer(&self) -> Viewer<'_> {
        self.viewers.fetch_add(1, Ordering::AcqRel);
        Viewer(self)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// All that there is, as JSON, for a page that begins with it.
    pub(super) fn picture(&self) -> Picture {
        let telling = self.telling();
        let Telling { name, story, number: _, is_over } = &*telling;
        Picture::of(name, story, *is_over)
    }

    /// What is new to somebody who was told so much, as JSON, and how much that is; `None` if
    /// nothing is.
    pub(super) fn news(&self, told: Option<Told>) -> Option<(String, Told)> {
        let telling = self.telling();
        let Telling { name, story, number, is_over } = &*telling;
        let now = Told { number: *number, revision: story.revision, is_over: *is_over };
        if told == Some(now) {
            return None;
        }
        let known = told.filter(|told| told.number == *number);
        let since = known.map_or(0, |told| told.revision);
        let picture = Picture::since(since, name, story, *is_over);
        drop(telling);
        let json = serde_json::to_string(&News { anew: known.is_none(), picture }).ok()?;
        Some((json, now))
    }
}

impl Told {
    /// Whether nothing more will come.
    pub(super) fn is_all(self) -> bool {
        self.is_over
    }
}

impl Drop for Viewer<'_> {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Ordering::AcqRel);
    }
}
