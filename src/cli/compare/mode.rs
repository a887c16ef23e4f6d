//! A measured mode, as it is named on the command line: `threads:30`, `processes:2x15`.

use std::fmt;
use std::str::FromStr;

/// A language, and an executor with its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MeasuredMode {
    pub language: Language,
    pub executor: ExecutorSpec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Rust,
    /// The executors of CPython's `concurrent.futures`.
    Python,
}

/// The executor. `None` is the default size of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExecutorSpec {
    Sequential,
    Threads(Option<usize>),
    Processes(Option<PoolSize>),
    /// The agents of other hosts, as many as there are.
    Hosts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PoolSize {
    pub workers: usize,
    /// Threads of each worker.
    pub threads: usize,
}

/// The most tasks at a time of a mode.
const MOST: usize = 1000;

impl MeasuredMode {
    pub(super) fn rust(executor: ExecutorSpec) -> Self {
        Self { language: Language::Rust, executor }
    }

    pub(super) fn python(executor: ExecutorSpec) -> Self {
        Self { language: Language::Python, executor }
    }

    /// How many tasks run at a time, if the mode has a number.
    pub(super) fn concurrency(self) -> Option<usize> {
        match self.executor {
            ExecutorSpec::Sequential => Some(1),
            ExecutorSpec::Threads(threads) => threads,
            ExecutorSpec::Processes(size) => {
                size.map(|PoolSize { workers, threads }| workers * threads)
            }
            ExecutorSpec::Hosts => None,
        }
    }

    /// The number of worker processes in the mode; 0 without one.
    pub(super) fn workers(self) -> usize {
        match self.executor {
            ExecutorSpec::Processes(Some(size)) => size.workers,
            _ => 0,
        }
    }

    /// The mode without its numbers, such as `python-threads`.
    pub(super) fn kind(self) -> String {
        let executor = match self.executor {
            ExecutorSpec::Sequential => ExecutorSpec::Sequential,
            ExecutorSpec::Threads(_) => ExecutorSpec::Threads(None),
            ExecutorSpec::Processes(_) => ExecutorSpec::Processes(None),
            ExecutorSpec::Hosts => ExecutorSpec::Hosts,
        };
        Self { executor, ..self }.to_string()
    }
}

impl fmt::Display for MeasuredMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let language = match self.language {
            Language::Rust => "",
            Language::Python => "python-",
        };
        let executor = match self.executor {
            ExecutorSpec::Sequential => "sequential".to_owned(),
            ExecutorSpec::Threads(None) => "threads".to_owned(),
            ExecutorSpec::Threads(Some(threads)) => format!("threads:{threads}"),
            ExecutorSpec::Processes(None) => "processes".to_owned(),
            ExecutorSpec::Processes(Some(PoolSize { workers, threads: 1 })) => {
                format!("processes:{workers}")
            }
            ExecutorSpec::Processes(Some(PoolSize { workers, threads })) => {
                format!("processes:{workers}x{threads}")
            }
            ExecutorSpec::Hosts => "hosts".to_owned(),
        };
        f.pad(&format!("{language}{executor}"))
    }
}

/// A text that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ModeError {
    #[error("{0:?}: numbers must be 1 to {MOST}")]
    Number(String),
    #[error("{0:?}: sequential has no size")]
    SequentialSize(String),
    #[error("{0:?}: hosts has no size: each agent has one")]
    HostsSize(String),
    #[error("{0:?}: more than {MOST} tasks at a time")]
    TooMany(String),
    #[error("{0:?}: CPython's processes have one thread each")]
    PythonThreads(String),
    #[error(
        "{0:?} is no mode: a mode is sequential, threads or threads:N, processes, processes:N, \
         processes:NxM (N processes of M threads) or hosts"
    )]
    Unknown(String),
}

impl FromStr for MeasuredMode {
    type Err = ModeError;

    fn from_str(typed: &str) -> Result<Self, ModeError> {
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
            _ => Err(ModeError::Number(typed.to_owned())),
        };
        let executor = match (kind, size) {
            ("sequential", None) => ExecutorSpec::Sequential,
            ("sequential", Some(_)) => return Err(ModeError::SequentialSize(typed.to_owned())),
            ("hosts", None) if language == Language::Rust => ExecutorSpec::Hosts,
            ("hosts", Some(_)) => return Err(ModeError::HostsSize(typed.to_owned())),
            ("threads" | "thread", size) => ExecutorSpec::Threads(size.map(number).transpose()?),
            ("processes" | "process", None) => ExecutorSpec::Processes(None),
            ("processes" | "process", Some(size)) => {
                let (workers, threads) = size.split_once('x').unwrap_or((size, "1"));
                let (workers, threads) = (number(workers)?, number(threads)?);
                if workers * threads > MOST {
                    return Err(ModeError::TooMany(typed.to_owned()));
                }
                if threads > 1 && language == Language::Python {
                    return Err(ModeError::PythonThreads(typed.to_owned()));
                }
                ExecutorSpec::Processes(Some(PoolSize { workers, threads }))
            }
            _ => return Err(ModeError::Unknown(typed.to_owned())),
        };
        Ok(Self { language, executor })
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
            "hosts",
            "python-sequential",
            "python-threads:2",
            "python-processes:2",
        ] {
            assert_eq!(name.parse::<MeasuredMode>().unwrap().to_string(), name);
        }
        assert_eq!("Thread:3".parse::<MeasuredMode>().unwrap().to_string(), "threads:3");
        assert_eq!("process:3x1".parse::<MeasuredMode>().unwrap().to_string(), "processes:3");
        assert_eq!("processes:2x15".parse::<MeasuredMode>().unwrap().concurrency(), Some(30));
        assert_eq!("python-threads:2".parse::<MeasuredMode>().unwrap().kind(), "python-threads");
    }

    #[test]
    fn invalid_modes_are_refused_with_a_reason() {
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
            ("hosts:2", "has no size"),
            ("python-hosts", "is no mode"),
            ("python-processes:2x2", "one thread each"),
        ] {
            let error = typed.parse::<MeasuredMode>().unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(typed), "{error}");
        }
    }
}
