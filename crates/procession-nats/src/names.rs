//! [`Names`]: the streams and subjects of one group of coordinators and agents.
//!
//! | name | what |
//! |---|---|
//! | stream `{prefix}-tasks`, `{prefix}.t.{build}.{lane}.{job}.{id}` | the queue: messages that were not acknowledged; `{id}x{n}` of n tasks |
//! | stream `{prefix}-records`, `{prefix}.r.{job}.{id}` | the latest record of each task |
//! | `{prefix}.r.{job}.lease.owner` | the coordinator of a job that has a name |
//! | `{prefix}.u.{job}.{id}` | the same records again, once they are stored |
//! | bucket `{prefix}-hosts` | the leases of agents |
//! | bucket `{prefix}-bodies` | tasks and results that are too large for a message |
//! | `{prefix}.s.{job}.{id}` | lines and values that a task sends before its result |
//! | `{prefix}.c.{instance}` | requests to an agent: to end a task, to send its logs |

/// What names begin with. Agents and coordinators with the same prefix work together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    prefix: String,
}

/// Whether a text can be a part of a subject and of a stream's name.
pub(crate) fn is_token(text: &str) -> bool {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(is_fine)
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Result<Self, String> {
        if is_token(prefix) {
            Ok(Self { prefix: prefix.to_owned() })
        } else {
            Err(format!(
                "the prefix {prefix:?} is not 1 to 64 of the characters a-z, A-Z, 0-9, _, -"
            ))
        }
    }

    pub(crate) fn tasks(&self) -> String {
        format!("{}-tasks", self.prefix)
    }

    pub(crate) fn records(&self) -> String {
        format!("{}-records", self.prefix)
    }

    pub(crate) fn hosts(&self) -> String {
        format!("{}-hosts", self.prefix)
    }

    pub(crate) fn bodies(&self) -> String {
        format!("{}-bodies", self.prefix)
    }

    /// The stream of the bucket of leases.
    pub(crate) fn host_stream(&self) -> String {
        format!("KV_{}", self.hosts())
    }

    /// The stream of the bucket of bodies.
    pub(crate) fn body_stream(&self) -> String {
        format!("OBJ_{}", self.bodies())
    }

    /// The metadata of each body in the bucket: its name, length, hash and id.
    pub(crate) fn body_infos(&self) -> String {
        format!("$O.{}.M.>", self.bodies())
    }

    /// The chunks of a body, which the bucket has given this id.
    pub(crate) fn body_chunks(&self, nuid: &str) -> String {
        format!("$O.{}.C.{nuid}", self.bodies())
    }

    /// Of all tasks.
    pub(crate) fn all_tasks(&self) -> String {
        format!("{}.t.>", self.prefix)
    }

    /// In all lanes.
    pub(crate) fn tasks_of_build(&self, build: &str) -> String {
        format!("{}.t.{build}.>", self.prefix)
    }

    pub(crate) fn tasks_of_lane(&self, build: &str, lane: QueueLane) -> String {
        format!("{}.t.{build}.{}.>", self.prefix, lane.token())
    }

    pub(crate) fn tasks_of_job(&self, job: &str) -> String {
        format!("{}.t.*.*.{job}.*", self.prefix)
    }

    /// The subject of a message with this number of tasks.
    pub(crate) fn task(
        &self,
        build: &str,
        lane: QueueLane,
        job: &str,
        (id, tasks): (u64, usize),
    ) -> String {
        let several = if tasks > 1 { format!("x{tasks}") } else { String::new() };
        format!("{}.t.{build}.{}.{job}.{id}{several}", self.prefix, lane.token())
    }

    pub(crate) fn all_records(&self) -> String {
        format!("{}.r.>", self.prefix)
    }

    pub(crate) fn records_of_job(&self, job: &str) -> String {
        format!("{}.r.{job}.*", self.prefix)
    }

    pub(crate) fn record(&self, job: &str, id: u64) -> String {
        format!("{}.r.{job}.{id}", self.prefix)
    }

    /// Where the lease of a job is. It is not among the records of the job.
    pub(crate) fn job_lease(&self, job: &str) -> String {
        format!("{}.r.{job}.lease.owner", self.prefix)
    }

    pub(crate) fn all_news(&self) -> String {
        format!("{}.u.>", self.prefix)
    }

    pub(crate) fn news_of_job(&self, job: &str) -> String {
        format!("{}.u.{job}.*", self.prefix)
    }

    /// The subject on which a task sends lines and values before its result.
    pub(crate) fn said(&self, job: &str, id: u64) -> String {
        format!("{}.s.{job}.{id}", self.prefix)
    }

    pub(crate) fn said_in_job(&self, job: &str) -> String {
        format!("{}.s.{job}.*", self.prefix)
    }

    pub(crate) fn control(&self, instance: &str) -> String {
        format!("{}.c.{instance}", self.prefix)
    }

    /// The subject under which the lease of an instance is stored.
    pub(crate) fn lease(&self, instance: &str) -> String {
        format!("$KV.{}.{instance}", self.hosts())
    }
}

/// A part of the queue of a build. Agents take messages from a lane only if they find none in those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueLane {
    High,
    Normal,
    Low,
}

impl QueueLane {
    /// All of them, the most urgent first.
    pub(crate) const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// By the sign of the priority.
    pub(crate) fn of_priority(priority: i32) -> Self {
        match priority {
            1.. => Self::High,
            0 => Self::Normal,
            _ => Self::Low,
        }
    }

    /// Of a task in the queue.
    pub(crate) fn of_subject(subject: &str) -> Option<Self> {
        // {prefix}.t.{build}.{lane}.{job}.{id}
        let token = subject.split('.').nth(3)?;
        Self::ALL.into_iter().find(|lane| lane.token() == token)
    }

    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// The consumer of this lane of a build.
    pub(crate) fn consumer(self, build: &str) -> String {
        format!("{build}-{}", self.token())
    }
}

/// The job and the id of a task, from the end of one of its subjects.
pub(crate) fn job_and_id(subject: &str) -> Option<(&str, u64)> {
    let (rest, id) = subject.rsplit_once('.')?;
    let id = id.split_once('x').map_or(id, |(id, _)| id);
    Some((rest.rsplit_once('.')?.1, id.parse().ok()?))
}

/// The number of tasks in a message of the queue.
pub(crate) fn tasks_in(subject: &str) -> u64 {
    let id = subject.rsplit_once('.').map_or(subject, |(_, id)| id);
    id.split_once('x').and_then(|(_, tasks)| tasks.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_says_whose_task_it_is() {
        let names = Names::new("p").expect("a prefix");
        let [task, bundle] =
            [1, 12].map(|tasks| names.task("b", QueueLane::of_priority(-3), "j-1", (7, tasks)));
        assert_eq!(QueueLane::of_subject(&task), Some(QueueLane::Low));
        assert_eq!((tasks_in(&task), tasks_in(&bundle)), (1, 12));
        for subject in [task, bundle, names.record("j-1", 7)] {
            assert_eq!(job_and_id(&subject), Some(("j-1", 7)));
        }
        assert_eq!(job_and_id("x.y"), None);
        for bad in ["", "a.b", "a b", "*", ">", &"x".repeat(65)] {
            assert!(Names::new(bad).is_err(), "{bad}");
        }
    }
}
