//! What is wrong with the logs of a run, in words: told once, so that the rest can be shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::event::FORMAT;
use super::merge::Merge;
use super::story::Story;
use super::tail::Flaw;

/// So many processes or files are told by their names.
const NAMED: usize = 4;

/// What was met while reading.
#[derive(Debug, Default)]
pub struct Troubles {
    /// How many lines of a file, the first of which.
    flaws: BTreeMap<(PathBuf, Flaw), (u64, u64)>,
    other: Vec<String>,
}

impl Troubles {
    /// Notes a line that is none of ours; gives how many of this kind were met in its file.
    pub fn note(&mut self, path: &Path, number: u64, flaw: Flaw) -> u64 {
        let key = (path.to_owned(), flaw);
        let (count, _) = self.flaws.entry(key).or_insert((0, number));
        *count += 1;
        *count
    }

    /// Notes what lies there besides, and what cannot be read.
    pub fn note_files(&mut self, merge: &mut Merge) {
        match &merge.strangers()[..] {
            strangers if strangers.len() <= NAMED => self.other.extend(
                strangers.iter().map(|path| format!("{}: it is no log of ours", name(path))),
            ),
            many => {
                let (named, rest) = many.split_at(NAMED);
                let named: Vec<_> = named.iter().map(|path| name(path)).collect();
                let (named, rest) = (named.join(", "), rest.len());
                self.other.push(format!("{named} and {rest} more: they are no logs of ours"));
            }
        }
        self.other.extend(merge.empty().map(|path| format!("{}: it is empty", name(path))));
        let broken = merge.broken().into_iter();
        self.other.extend(
            broken.map(|(path, error)| format!("{}: cannot be read: {error}", name(&path))),
        );
    }

    /// Notes what the story lacks: who left no last line, and who was of another version.
    pub fn note_gaps(&mut self, story: &Story, is_going_on: bool) {
        let mut others = BTreeMap::<String, u32>::new();
        for party in &story.parties {
            if let Some((version, format)) = &party.version
                && *format != FORMAT
            {
                *others.entry(version.clone()).or_default() += 1;
            }
        }
        if let Some(missing) = &story.missing {
            self.other.push(missing.to_string());
        }
        let was_killed = |number: usize| match (&story.missing, number) {
            (Some(_), _) => "killed, or the line is missing",
            (None, 1) => "it was killed",
            (None, _) => "they were killed",
        };
        let killed = story.parties.iter();
        let killed: Vec<_> = killed
            .filter(|party| party.end.is_none() && party.version.is_some() && !is_going_on)
            .map(|party| format!("{} (pid {})", party.name(), party.pid))
            .collect();
        match &killed[..] {
            [] => {}
            [one] => self.other.push(format!("{one} left no last line: {}", was_killed(1))),
            many if many.len() <= NAMED => {
                let (named, why) = (many.join(", "), was_killed(many.len()));
                self.other.push(format!("{named} left no last line: {why}"));
            }
            many => {
                let (named, rest) = many.split_at(NAMED);
                let (named, rest) = (named.join(", "), rest.len());
                let why = was_killed(many.len());
                self.other.push(format!("{named} and {rest} more left no last line: {why}"));
            }
        }
        for (version, count) in others {
            let files = if count == 1 { "a file is" } else { "some files are" };
            self.other.push(format!(
                "{files} of another version of procession ({version}): not all in it may be understood"
            ));
        }
    }

    /// A line for each trouble.
    pub fn lines(&self) -> Vec<String> {
        let flaws = self.flaws.iter().map(|((path, flaw), (count, first))| {
            let what = match flaw {
                Flaw::Torn => "is cut short",
                Flaw::Foreign => "is no line of a log",
                Flaw::Endless => "is longer than any of ours",
            };
            match count {
                1 => format!("{}: line {first} {what}", name(path)),
                _ => format!("{}: line {first} {what}, and {} more", name(path), count - 1),
            }
        });
        flaws.chain(self.other.iter().cloned()).collect()
    }
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()
}
