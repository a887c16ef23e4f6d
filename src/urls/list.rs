//! A list of URLs: one a line, and after it, if wanted, the name of the file.
//!
//! ```text
//!  # a comment
//!  https://example.org/a.png
//!  https://example.org/download?id=7   reports/seven.pdf
//! ```
//!
//! The whole list is checked before anything is fetched. A file without a name gets that of the URL's path,
//! with a number where another file has it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use ureq::http::Uri;

use super::name::{self, NameError};
use crate::files::item::{BodyCheck, FileItem};

/// The most wrong lines that a message names.
const LISTED: usize = 5;

/// A text with URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlText {
    /// Its name, for messages: `urls.txt`, `standard input`.
    pub name: String,
    /// Its lines.
    pub text: String,
}

/// Where a URL was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UrlPlace {
    /// In a line of a text, counted from 1.
    Line(Arc<str>, usize),
    /// As an argument of the command line, counted from 1.
    Argument(usize),
}

impl fmt::Display for UrlPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(name, number) => write!(f, "{name}, line {number}"),
            Self::Argument(number) => write!(f, "argument {number}"),
        }
    }
}

/// What is wrong with one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlLineError {
    /// It has another scheme, or its host or port is wrong.
    #[error("{0:?} is no correct URL of the form http://host/path or https://host/path")]
    NoUrl(String),
    /// The URL has the name of a user.
    #[error(
        "a user name in a URL would stand in the logs: write the URL without it, and add \
         --header 'Authorization: Basic …'"
    )]
    User,
    /// The name of the file is not accepted.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Another line has this name.
    #[error("the name {name} is also that of {other}")]
    SameName {
        /// The name.
        name: String,
        /// The place of the other.
        other: UrlPlace,
    },
    /// The name of a file is that of a directory of another.
    #[error("the name {name} is that of a directory, because of {other}")]
    Directory {
        /// The name.
        name: String,
        /// The place of the other.
        other: UrlPlace,
    },
}

/// Why a list is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UrlListError {
    /// These lines are wrong.
    Lines(Vec<(UrlPlace, UrlLineError)>),
    /// There is no URL at all: neither in the arguments nor in the texts of these names.
    Empty(Vec<String>),
}

impl fmt::Display for UrlListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong = match self {
            Self::Empty(texts) if texts.is_empty() => {
                return f.write_str(
                    "there is no URL: give URLs, or a file of them with -i FILE (-i - for standard input)",
                );
            }
            Self::Empty(texts) => return write!(f, "there is no URL in {}", texts.join(", ")),
            Self::Lines(wrong) => wrong,
        };
        let listed = wrong.iter().take(LISTED).map(|(place, error)| format!("{place}: {error}"));
        f.write_str(&listed.collect::<Vec<_>>().join("\n  "))?;
        match wrong.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more that are wrong"),
        }
    }
}

impl std::error::Error for UrlListError {}

/// A list whose URLs and names have been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlList {
    /// The files, in the order of the lines.
    pub items: Vec<FileItem>,
    /// What the user should know: URLs that were given twice, and names that got a number.
    pub notes: Vec<String>,
}

/// A URL with its place, and its name if one was given.
struct GivenUrl {
    place: UrlPlace,
    uri: Uri,
    name: Option<String>,
}

impl UrlList {
    /// Reads the arguments, each a URL, and then the texts.
    pub fn read(arguments: &[String], texts: &[UrlText]) -> Result<Self, UrlListError> {
        let mut wrong = Vec::new();
        let mut given = Vec::new();
        let mut add = |place: UrlPlace, url: &str, name: Option<&str>| {
            let named = name.map(name::typed).transpose().map_err(UrlLineError::from);
            match named.and_then(|name| Ok((parsed(url)?, name))) {
                Ok((uri, name)) => given.push(GivenUrl { place, uri, name }),
                Err(error) => wrong.push((place, error)),
            }
        };
        for (index, url) in arguments.iter().enumerate() {
            add(UrlPlace::Argument(index + 1), url, None);
        }
        for UrlText { name, text } in texts {
            let name: Arc<str> = name.as_str().into();
            for (index, line) in text.lines().enumerate() {
                // Lists that were joined may have the mark of Unicode at each begin.
                let line = line.trim_start_matches('\u{feff}').trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let (url, file) = match line.split_once([' ', '\t']) {
                    Some((url, file)) => (url, Some(file.trim())),
                    None => (line, None),
                };
                add(UrlPlace::Line(Arc::clone(&name), index + 1), url, file);
            }
        }
        let (given, mut notes) = without_duplicates(given);
        let mut names = TakenNames::default();
        wrong.extend(names.take_typed(&given));
        if !wrong.is_empty() {
            return Err(UrlListError::Lines(wrong));
        }
        if given.is_empty() {
            return Err(UrlListError::Empty(texts.iter().map(|text| text.name.clone()).collect()));
        }
        let mut renamed = Vec::new();
        let items = given.into_iter().map(|GivenUrl { place, uri, name }| {
            let file = name.unwrap_or_else(|| {
                let (wanted, free) = names.take_default(&uri);
                if wanted != free {
                    renamed.push(format!("{place}: {wanted} is taken, so the file is {free}"));
                }
                free
            });
            FileItem { code: file.clone(), url: uri.to_string(), file, check: BodyCheck::Any }
        });
        let items = items.collect();
        notes.append(&mut renamed);
        Ok(Self { items, notes })
    }
}

/// The URL, without its fragment. Characters of the path that are not ASCII are encoded.
fn parsed(url: &str) -> Result<Uri, UrlLineError> {
    let no_url = || UrlLineError::NoUrl(url.to_owned());
    let whole = url.split('#').next().unwrap_or_default();
    let encoded: String = whole.bytes().map(encoded).collect();
    let uri: Uri = encoded.parse().map_err(|_| no_url())?;
    let is_web = uri.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"));
    let authority = uri.authority().filter(|_| is_web).ok_or_else(no_url)?;
    if authority.as_str().contains('@') {
        return Err(UrlLineError::User);
    }
    let after_host = authority.as_str().rsplit(']').next().unwrap_or_default();
    let is_port_right = !after_host.contains(':') || authority.port_u16().is_some();
    let is_host_right = !authority.host().is_empty() && !authority.host().contains('%');
    if is_port_right && is_host_right { Ok(with_small_host(uri)) } else { Err(no_url()) }
}

/// The URL with its host in small letters: the host is the same in capitals.
fn with_small_host(uri: Uri) -> Uri {
    let small = uri.authority().and_then(|host| host.as_str().to_ascii_lowercase().parse().ok());
    let mut parts = uri.clone().into_parts();
    parts.authority = small;
    Uri::from_parts(parts).unwrap_or(uri)
}

fn encoded(byte: u8) -> String {
    if byte.is_ascii() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
}

/// The URLs without those that were given before with the same name, and a note about these.
fn without_duplicates(given: Vec<GivenUrl>) -> (Vec<GivenUrl>, Vec<String>) {
    let mut seen = HashMap::<(String, Option<String>), UrlPlace>::new();
    let mut notes = Vec::new();
    let kept = given.into_iter().filter(|GivenUrl { place, uri, name }| {
        let key = (uri.to_string(), name.clone());
        if let Some(first) = seen.get(&key) {
            notes.push(format!("{place}: the same URL as in {first}, fetched once"));
            return false;
        }
        seen.insert(key, place.clone());
        true
    });
    (kept.collect(), notes)
}

/// The names of the files so far, and those of their directories.
#[derive(Default)]
struct TakenNames {
    files: HashMap<String, Option<UrlPlace>>,
    directories: HashMap<String, UrlPlace>,
    /// The next number of a default name.
    numbers: HashMap<String, usize>,
    defaults: HashSet<String>,
}

impl TakenNames {
    /// Takes the names that were typed, and returns those that another file has.
    fn take_typed(&mut self, given: &[GivenUrl]) -> Vec<(UrlPlace, UrlLineError)> {
        let typed = || given.iter().filter_map(|url| Some((&url.place, url.name.as_ref()?)));
        let mut wrong = Vec::new();
        for (place, name) in typed() {
            for (at, _) in name.match_indices('/') {
                self.directories.entry(name[..at].to_owned()).or_insert_with(|| place.clone());
            }
        }
        for (place, name) in typed() {
            if let Some(other) = self.directories.get(name) {
                let (name, other) = (name.clone(), other.clone());
                wrong.push((place.clone(), UrlLineError::Directory { name, other }));
            } else if let Some(Some(other)) = self.files.get(name) {
                let (name, other) = (name.clone(), other.clone());
                wrong.push((place.clone(), UrlLineError::SameName { name, other }));
            } else {
                self.files.insert(name.clone(), Some(place.clone()));
            }
        }
        wrong
    }

    /// The default name of the file, and the name that is still free.
    fn take_default(&mut self, uri: &Uri) -> (String, String) {
        let wanted = name::of_url(uri);
        let mut free = wanted.clone();
        while self.files.contains_key(&free)
            || self.directories.contains_key(&free)
            || self.defaults.contains(&free)
        {
            let number = self.numbers.entry(wanted.clone()).or_insert(1);
            *number += 1;
            free = name::numbered(&wanted, *number);
        }
        self.defaults.insert(free.clone());
        (wanted, free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<UrlList, UrlListError> {
        UrlList::read(&[], &[UrlText { name: "urls.txt".into(), text: text.into() }])
    }

    fn files(list: &UrlList) -> Vec<(&str, &str)> {
        list.items.iter().map(|item| (item.url.as_str(), item.file.as_str())).collect()
    }

    #[test]
    fn a_line_is_a_url_and_perhaps_a_name() {
        let text = "\u{feff}# a comment\r\n\nhttp://h/a.png\nhttps://h:1/b?c=d#e\tx/y z.png \n  http://h/ü  u\n\u{feff}HTTP://WWW.H/A v\n";
        let list = read(text).unwrap();
        let expected = [
            ("http://h/a.png", "a.png"),
            ("https://h:1/b?c=d", "x/y z.png"),
            ("http://h/%C3%BC", "u"),
            ("http://www.h/A", "v"),
        ];
        assert_eq!(files(&list), expected);
        assert!(list.notes.is_empty(), "{list:?}");
    }

    #[test]
    fn names_that_are_taken_get_a_number_and_urls_that_come_twice_are_fetched_once() {
        let text = "http://h/a.png\nhttp://i/a.png\nhttp://h/a.png\nhttp://j/x a-2.png\nhttp://h/d\nhttp://j/y d/e\n";
        let list = read(text).unwrap();
        let names: Vec<_> = list.items.iter().map(|item| item.file.as_str()).collect();
        assert_eq!(names, ["a.png", "a-3.png", "a-2.png", "d-2", "d/e"]);
        assert_eq!(
            list.notes,
            [
                "urls.txt, line 3: the same URL as in urls.txt, line 1, fetched once",
                "urls.txt, line 2: a.png is taken, so the file is a-3.png",
                "urls.txt, line 5: d is taken, so the file is d-2",
            ]
        );
    }

    #[test]
    fn all_wrong_lines_are_told_with_their_numbers() {
        let text = "http://h/a x\nftp://h/b\nhttp://u:p@h/\nhttp://h/c x\nhttp://h/d ../d\nhttp://h/e x/y\n\
                    http://\nhttp://h:99999/\nhttp://h/%\n";
        let error = read(text).unwrap_err();
        let UrlListError::Lines(wrong) = &error else { panic!("{error}") };
        let lines: Vec<_> = wrong.iter().map(|(place, _)| place.to_string()).collect();
        let expected = [2, 3, 5, 7, 8, 1, 4].map(|line| format!("urls.txt, line {line}"));
        assert_eq!(lines, expected);
        let text = error.to_string();
        assert!(text.starts_with("urls.txt, line 2: \"ftp://h/b\" is no correct URL"), "{text}");
        assert!(text.ends_with("and 2 more that are wrong"), "{text}");
        let empty = read("# nothing\n").unwrap_err();
        assert_eq!(empty.to_string(), "there is no URL in urls.txt");
        let empty = UrlList::read(&[], &[]).unwrap_err().to_string();
        assert!(empty.starts_with("there is no URL: give URLs"), "{empty}");
    }

    #[test]
    fn a_name_that_two_lines_have_is_refused() {
        let error = read("http://h/a x\nhttp://h/b x\n").unwrap_err().to_string();
        assert_eq!(error, "urls.txt, line 2: the name x is also that of urls.txt, line 1");
    }

    #[test]
    fn arguments_are_urls_as_well() {
        let list = UrlList::read(&["http://h/a".into(), "http://h/b".into()], &[]).unwrap();
        assert_eq!(files(&list), [("http://h/a", "a"), ("http://h/b", "b")]);
        let error = UrlList::read(&["h/a".into()], &[]).unwrap_err().to_string();
        assert!(error.starts_with("argument 1: \"h/a\" is no correct URL"), "{error}");
    }
}
