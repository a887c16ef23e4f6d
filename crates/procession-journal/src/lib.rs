//! Per-process logs: every process of a run writes its own file, none waits for another.
//!
//! ```text
//!  logs/latest ─► logs/2026-11-22T23-49-32-4711/   run_dir: one directory a run
//!                   coordinator-4711.jsonl         writer:  one file a process
//!                   worker-0-4712.jsonl            entry:   one JSON object a line
//!                   reserve.jsonl                  reserve: how it ended, if the disk is full
//!                         │
//!                         ▼
//!                   tail ─► merge ─► story         read: by line, by time, as a whole
//! ```

pub mod entry;
pub mod event;
pub mod merge;
pub mod reserve;
pub mod run_dir;
pub mod slots;
pub mod story;
pub mod tail;
pub mod troubles;
pub mod writer;

use std::io;
use std::path::Path;

pub use entry::{Entry, Head, Level, Process};
pub use event::{Event, FORMAT, Stream, Terms, Usage};
pub use merge::{Item, Merge};
pub use run_dir::{RunDir, is_going_on};
pub use slots::Slot;
pub use story::Story;
pub use tail::{Flaw, Line};
pub use troubles::Troubles;
pub use writer::{Journal, current, is_being_written, set};

/// Reads the whole story of a run from its directory, or from one of its files.
pub fn read(path: &Path) -> io::Result<(Story, Troubles)> {
    let is_going_on = is_going_on(path);
    let mut merge = Merge::open(path, !is_going_on)?;
    let (mut story, mut troubles) = (Story::default(), Troubles::default());
    feed(&mut merge, &mut story, &mut troubles);
    if is_going_on {
        // Until the end its lines are overwritten, so it is no part of the merge.
        reserve::entries(path).into_iter().for_each(|entry| story.add(entry));
    }
    match is_going_on {
        true => story.goes_on_at(entry::now().as_microsecond()),
        false => story.close(),
    }
    troubles.note_gaps(&story, is_going_on);
    Ok((story, troubles))
}

/// Adds to the story what there is to read at present.
pub fn feed(merge: &mut Merge, story: &mut Story, troubles: &mut Troubles) {
    while let Some(item) = merge.next() {
        match item.line {
            Line::Good(text, _) => match serde_json::from_str(text) {
                Ok(entry) => story.add(entry),
                Err(_) => drop(troubles.note(item.path, item.number, Flaw::Foreign)),
            },
            Line::Bad(_, flaw) => drop(troubles.note(item.path, item.number, flaw)),
        }
    }
    troubles.note_files(merge);
}
