//! How many workers and connections a run has.

use crate::cli::options::Mode;
use crate::files::report::ExecutionStyle;

/// The most concurrent requests of all modes but `sequential`.
const MAX_CONNECTIONS: usize = 1000;
/// The default number of threads; as in the book.
const DEFAULT_THREADS: usize = 30;

/// The kind of executor of a run, with its numbers of workers and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parallelism {
    Sequential,
    Threads {
        connections: usize,
    },
    Processes {
        workers: usize,
        connections: usize,
    },
    /// How many at a time is up to the agents; `connections` is what is believed of them.
    Hosts {
        connections: usize,
    },
}

impl Parallelism {
    /// The number of connections is the requested one, limited by the mode and by the number of
    /// codes. The number of workers is at most the number of connections.
    pub(super) fn resolve(
        mode: Mode,
        requested: Option<usize>,
        workers: Option<usize>,
        codes: usize,
    ) -> Self {
        let most = MAX_CONNECTIONS.min(codes).max(1);
        match mode {
            Mode::Sequential => Self::Sequential,
            Mode::Threads => {
                Self::Threads { connections: requested.unwrap_or(DEFAULT_THREADS).min(most) }
            }
            Mode::Processes => {
                let workers = workers.unwrap_or_else(num_cpus::get);
                let connections = requested.unwrap_or(workers).min(most);
                Self::Processes { workers: workers.min(connections), connections }
            }
            Mode::Hosts => Self::Hosts { connections: requested.unwrap_or(1).min(most) },
        }
    }

    /// The name of the mode.
    pub(super) fn mode(self) -> &'static str {
        match self {
            Self::Sequential => Mode::Sequential,
            Self::Threads { .. } => Mode::Threads,
            Self::Processes { .. } => Mode::Processes,
            Self::Hosts { .. } => Mode::Hosts,
        }
        .name()
    }

    pub(super) fn has_processes(self) -> bool {
        matches!(self, Self::Processes { .. })
    }

    /// Whether the executor can end tasks that run.
    pub(super) fn can_kill(self) -> bool {
        matches!(self, Self::Processes { .. } | Self::Hosts { .. })
    }

    pub(super) fn workers(self) -> usize {
        match self {
            Self::Sequential | Self::Threads { .. } | Self::Hosts { .. } => 0,
            Self::Processes { workers, .. } => workers,
        }
    }

    pub(super) fn connections(self) -> usize {
        match self {
            Self::Sequential => 1,
            Self::Threads { connections }
            | Self::Processes { connections, .. }
            | Self::Hosts { connections } => connections,
        }
    }

    /// The most connections of one process.
    pub(super) fn connections_per_process(self) -> usize {
        self.connections().div_ceil(self.workers().max(1))
    }

    pub(super) fn style(self) -> ExecutionStyle {
        match self {
            Self::Sequential => ExecutionStyle::InProcess { connections: 1 },
            Self::Threads { connections } => ExecutionStyle::InProcess { connections },
            Self::Processes { workers, connections } => {
                ExecutionStyle::Processes { workers, connections }
            }
            Self::Hosts { .. } => ExecutionStyle::Hosts,
        }
    }
}
