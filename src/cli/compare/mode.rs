//! One way to run the job, as it is named on the command line: `threads:30`, `processes:2x15`.

use std::fmt;
use std::str::FromStr;

/// A kind of executor, with what was said about its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mode {
    pub language: Language,
    pub crew: Crew,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Rust,
    /// The executors of CPython's `concurrent.futures`.
    Python,
}

/// Who does the work; where a number is missing, the job has a usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crew {
    Sequential,
    Threads(Option<usize>),
    Processes(Option<Size>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub workers: usize,
    /// In each worker.
    pub threads: usize,
}

/// As many tasks at a time as a mode may have.
const MOST: usize = 1000;

impl Mode {
    pub(super) fn rust(crew: Crew) -> Self {
        Self { language: Language::Rust, crew }
    }

    pub(super) fn python(crew: Crew) -> Self {
        Self { language: Language::Python, crew }
    }

    /// How many tasks it runs at a time, if that was said.
    pub(super) fn concurrency(self) -> Option<usize> {
        match self.crew {
            Crew::Sequential => Some(1),
            Crew::Threads(threads) => threads,
            Crew::Processes(size) => size.map(|Size { workers, threads }| workers * threads),
        }
    }

    /// How many worker processes were asked for, in so many words.
    pub(super) fn workers(self) -> usize {
        match self.crew {
            Crew::Processes(Some(size)) => size.workers,
            _ => 0,
        }
    }

    /// The mode without its numbers, such as `python-threads`.
    pub(super) fn kind(self) -> String {
        let crew = match self.crew {
            Crew::Sequential => Crew::Sequential,
            Crew::Threads(_) => Crew::Threads(None),
            Crew::Processes(_) => Crew::Processes(None),
        };
        Self { crew, ..self }.to_string()
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let language = match self.language {
            Language::Rust => "",
            Language::Python => "python-",
        };
        let crew = match self.crew {
            Crew::Sequential => "sequential".to_owned(),
            Crew::Threads(None) => "threads".to_owned(),
            Crew::Threads(Some(threads)) => format!("threads:{threads}"),
            Crew::Processes(None) => "processes".to_owned(),
            Crew::Processes(Some(Size { workers, threads: 1 })) => format!("processes:{workers}"),
            Crew::Processes(Some(Size { workers, threads })) => {
                format!("processes:{workers}x{threads}")
            }
        };
        f.pad(&format!("{language}{crew}"))
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let lower = typed.to_ascii_lowercase();
        let (language, rest) = match lower.strip_prefix("python-") {
            Some(rest) => (Language::Python, rest),
            None => (Language::Rust, lower.as_str()),
        };
        let (kind, size) = match rest.split_once(':') {
            Some((kind, size)) => (kind, Some(size)),
            None => (rest, None),
        };
        let number = |text: &str| match text.parse() {
            Ok(number @ 1..=MOST) => Ok(number),
            _ => Err(format!("{typed:?}: numbers must be 1 to {MOST}")),
        };
        let crew = match (kind, size) {
            ("sequential", None) => Crew::Sequential,
            ("sequential", Some(_)) => return Err(format!("{typed:?}: sequential has no size")),
            ("threads" | "thread", size) => Crew::Threads(size.map(number).transpose()?),
            ("processes" | "process", None) => Crew::Processes(None),
            ("processes" | "process", Some(size)) => {
                let (workers, threads) = size.split_once('x').unwrap_or((size, "1"));
                let (workers, threads) = (number(workers)?, number(threads)?);
                if workers * threads > MOST {
                    return Err(format!("{typed:?}: more than {MOST} tasks at a time"));
                }
                if threads > 1 && language == Language::Python {
                    return Err(format!("{typed:?}: CPython's processes have one thread each"));
                }
                Crew::Processes(Some(Size { workers, threads }))
            }
            _ => {
                return Err(format!(
                    "{typed:?} is no mode: a mode is sequential, threads or threads:N, processes, \
                     processes:N or processes:NxM (N processes of M threads)"
                ));
            }
        };
        Ok(Self { language, crew })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_they_are_read() {
        for name in [
            "sequential",
            "threads",
            "threads:30",
            "processes",
            "processes:2",
            "processes:2x15",
            "python-sequential",
            "python-threads:2",
            "python-processes:2",
        ] {
            assert_eq!(name.parse::<Mode>().unwrap().to_string(), name);
        }
        assert_eq!("Thread:3".parse::<Mode>().unwrap().to_string(), "threads:3");
        assert_eq!("process:3x1".parse::<Mode>().unwrap().to_string(), "processes:3");
        assert_eq!("processes:2x15".parse::<Mode>().unwrap().concurrency(), Some(30));
        assert_eq!("python-threads:2".parse::<Mode>().unwrap().kind(), "python-threads");
    }

    #[test]
    fn odd_modes_are_refused_with_a_reason() {
        for (typed, reason) in [
            ("", "is no mode"),
            ("fibers", "is no mode"),
            ("processes:0", "must be 1 to 1000"),
            ("processes:2x0", "must be 1 to 1000"),
            ("processes:", "must be 1 to 1000"),
            ("processes:2x", "must be 1 to 1000"),
            ("processes:-1", "must be 1 to 1000"),
            ("processes:99999999999999999999", "must be 1 to 1000"),
            ("processes:40x40", "more than 1000"),
            ("threads:0", "must be 1 to 1000"),
            ("threads:2x2", "must be 1 to 1000"),
            ("sequential:1", "has no size"),
            ("python-processes:2x2", "one thread each"),
        ] {
            let error = typed.parse::<Mode>().unwrap_err();
            assert!(error.contains(reason) && error.contains(typed), "{error}");
        }
    }
}
