//! Which flags are selected: turns the arguments of the command line into a list of codes.

use std::collections::BTreeSet;

use thiserror::Error;

use super::codes::{AVAILABLE, Code, POP20};

/// Why a selection of codes was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectionError {
    /// An argument is neither a first letter nor a code.
    #[error("each CC argument must be A to Z or AA to ZZ, not {0:?}")]
    Argument(String),
    /// A codes file has an entry that is no code.
    #[error("codes file {file}, line {line}: each code must be AA to ZZ, not {word:?}")]
    Entry {
        /// The file, as the user named it.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// The entry.
        word: String,
    },
    /// A codes file has no entry at all.
    #[error("codes file {0}: no codes in it; give one or more, AA to ZZ, separated by white space")]
    EmptyFile(String),
}

/// A codes file, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodesFile {
    /// Its name, for messages.
    pub name: String,
    /// Its text: codes separated by white space; `#` starts a comment that ends with the line.
    pub text: String,
}

impl CodesFile {
    fn codes(&self) -> Result<Vec<Code>, SelectionError> {
        let text = self.text.strip_prefix('\u{feff}').unwrap_or(&self.text);
        let mut codes = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let kept = line.split('#').next().unwrap_or_default();
            for word in kept.split_whitespace() {
                codes.push(word.parse().map_err(|_| SelectionError::Entry {
                    file: self.name.clone(),
                    line: index + 1,
                    word: word.to_owned(),
                })?);
            }
        }
        if codes.is_empty() {
            return Err(SelectionError::EmptyFile(self.name.clone()));
        }
        Ok(codes)
    }
}

/// The selection as typed. Its parts add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Codes (`br`) and first letters (`B`), in any case.
    pub args: Vec<String>,
    /// All codes that have a flag.
    pub all: bool,
    /// All 676 codes.
    pub every: bool,
    /// The codes of a file.
    pub codes_file: Option<CodesFile>,
    /// The most codes that are kept, after sorting.
    pub limit: Option<usize>,
}

impl Selection {
    /// The selected codes: sorted, each once, the first `limit` of them. If nothing is selected,
    /// [`POP20`].
    pub fn expand(&self) -> Result<Vec<Code>, SelectionError> {
        let Selection { args, all, every, codes_file, limit } = self;
        let mut codes = BTreeSet::new();
        for arg in args {
            codes.extend(expand_argument(arg)?);
        }
        if *all {
            codes.extend(known(&AVAILABLE));
        }
        if *every {
            codes.extend(('A'..='Z').flat_map(Code::starting_with));
        }
        if let Some(file) = codes_file {
            codes.extend(file.codes()?);
        }
        if args.is_empty() && !all && !every && codes_file.is_none() {
            codes.extend(known(&POP20));
        }
        Ok(codes.into_iter().take(limit.unwrap_or(usize::MAX)).collect())
    }
}

fn expand_argument(arg: &str) -> Result<Vec<Code>, SelectionError> {
    let mut letters = arg.chars();
    if let (Some(letter), None) = (letters.next(), letters.next())
        && letter.is_ascii_alphabetic()
    {
        return Ok(Code::starting_with(letter).collect());
    }
    match arg.parse() {
        Ok(code) => Ok(vec![code]),
        Err(_) => Err(SelectionError::Argument(arg.to_owned())),
    }
}

fn known(codes: &'static [&'static str]) -> impl Iterator<Item = Code> {
    codes.iter().map(|code| code.parse().expect("the tables hold codes only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(selection: Selection) -> Vec<String> {
        let codes = selection.expand().expect("a good selection");
        codes.iter().map(Code::to_string).collect()
    }

    fn args(args: &[&str]) -> Selection {
        Selection { args: args.iter().map(|a| a.to_string()).collect(), ..Default::default() }
    }

    fn file(text: &str) -> Selection {
        let file = CodesFile { name: "mine.txt".into(), text: text.into() };
        Selection { codes_file: Some(file), ..Default::default() }
    }

    #[test]
    fn nothing_asked_means_the_most_populous_sorted() {
        let codes = texts(Selection::default());
        assert_eq!((codes.len(), codes[0].as_str(), codes[19].as_str()), (20, "BD", "VN"));
    }

    #[test]
    fn arguments_are_codes_and_first_letters_in_any_case() {
        assert_eq!(texts(args(&["us", "BR", "Us"])), ["BR", "US"]);
        let b = texts(args(&["b"]));
        assert_eq!((b.len(), b[0].as_str(), b[25].as_str()), (26, "BA", "BZ"));
    }

    #[test]
    fn all_every_and_limit() {
        let all = Selection { all: true, ..Default::default() };
        assert_eq!(texts(all), AVAILABLE);
        let every = Selection { every: true, ..Default::default() };
        assert_eq!(texts(every.clone()).len(), 676);
        let first = Selection { limit: Some(3), ..every };
        assert_eq!(texts(first), ["AA", "AB", "AC"]);
    }

    #[test]
    fn everything_asked_adds_up() {
        let both = Selection { args: vec!["zz".into()], ..file("br") };
        assert_eq!(texts(both), ["BR", "ZZ"]);
        let with_all = Selection { all: true, ..args(&["zz"]) };
        assert_eq!(texts(with_all).len(), 195);
    }

    #[test]
    fn a_bad_argument_is_named() {
        for bad in ["", "B1", "BRA", "é", "ß", "1", " b", "??"] {
            let error = args(&["br", bad]).expand().unwrap_err().to_string();
            assert!(error.contains("each CC argument must be A to Z or AA to ZZ"), "{error}");
            assert!(error.ends_with(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn a_codes_file_may_be_untidy() {
        let text = "\u{feff}# mine\r\nbr  CN\r\n\r\n\tus # the states\nBR\n";
        assert_eq!(texts(file(text)), ["BR", "CN", "US"]);
    }

    #[test]
    fn a_bad_entry_is_named_with_its_line() {
        let error = file("BR\nCN USA\n").expand().unwrap_err().to_string();
        assert_eq!(error, r#"codes file mine.txt, line 2: each code must be AA to ZZ, not "USA""#);
    }

    #[test]
    fn an_empty_codes_file_is_an_error() {
        for text in ["", "\u{feff}", "\r\n# BR\n"] {
            let error = file(text).expand().unwrap_err();
            assert_eq!(error, SelectionError::EmptyFile("mine.txt".into()));
        }
    }
}
