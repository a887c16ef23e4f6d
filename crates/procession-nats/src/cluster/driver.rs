//! [`ClusterDriver`]: drives a [`TaskOwner`] for each task. It never waits for an answer: each request is a
//! task of the runtime, which sends a note when it has one.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use procession::{PoolError, RemotePromise, RemoteTask, Shutdown, TaskError, TaskId, TaskOptions};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::bundles::TaskCosts;
use super::complete::EndedTask;
use super::driven::{DrivenMember, DrivenTask, WaitingMessage};
use super::ending::ClusterEnding;
use super::named::{HeldJob, NamedJob};
use super::said::{HeardTask, UnheardTask};
use super::shared::ClusterShared;
use super::upkeep::Upkeep;
use crate::host_lease::HostLease;
use crate::link::{Link, NoAnswer, RecordMessage};
use crate::members::Members;
use crate::message::Body;
use crate::names::job_and_id;
use crate::owner::{OwnerAction, OwnerEvent, TaskOwner};

/// The most tasks that are on their way into the queue at the same time: more would starve the consumers.
pub(crate) const WINDOW: usize = 1024;
/// For how long the server refuses a task, for example because its storage is full, before the task fails.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// A message to the driver.
pub(crate) enum ClusterNote {
    Submitted {
        id: TaskId,
        task: RemoteTask,
        promise: RemotePromise,
        options: TaskOptions,
    },
    Cancelled(TaskId),
    Abandoned(TaskId),
    ShutDown {
        how: Shutdown,
        done: std_mpsc::Sender<()>,
    },
    /// The job is left to another coordinator.
    Leave(std_mpsc::Sender<()>),
    /// Another coordinator has the job.
    JobLost(PoolError),
    /// An event of a task, with the message that brought it.
    Event {
        id: u64,
        event: OwnerEvent,
        body: Option<Bytes>,
    },
    /// The server refuses what is to be written.
    Fault {
        id: u64,
        event: OwnerEvent,
        reason: String,
    },
    /// The queue does not have the task's message; its latest record was read after that.
    Looked {
        id: u64,
        seq: u64,
        latest: Option<RecordMessage>,
    },
    Upkeep(super::upkeep::UpkeepNote),
}

pub(crate) struct ClusterDriver {
    pub(super) link: Link,
    pub(super) shared: Arc<ClusterShared>,
    pub(super) notes: UnboundedReceiver<ClusterNote>,
    news: Subscriber,
    leases: Subscriber,
    said: Subscriber,
    gaps: watch::Receiver<u64>,
    /// Tasks and bundles that have not ended, by their numbers in the subjects.
    pub(super) tasks: HashMap<u64, DrivenTask>,
    next: u64,
    /// For each task, the number of its [`DrivenTask`].
    pub(super) places: HashMap<TaskId, u64>,
    /// The tasks that wait for room in the window.
    pub(super) entering: VecDeque<u64>,
    pub(super) in_window: usize,
    /// The tasks and bundles whose messages are in the queue.
    pub(super) waiting: BTreeMap<u64, WaitingMessage>,
    /// The number of tasks and chunks in these messages.
    pub(super) waiting_members: usize,
    pub(super) costs: TaskCosts,
    /// Those that run, and where.
    pub(super) running: BTreeMap<u64, String>,
    /// The highest sequence number of a record that was seen.
    pub(super) seen: u64,
    pub(super) upkeep: Upkeep,
    /// Large results that are fetched, and bodies that are removed. The end of the driver waits for them.
    pub(super) errands: JoinSet<()>,
    pub(super) ending: Option<ClusterEnding>,
    /// Tasks whose results wait for the lines and values before them, by the number of the bundle and the index in it.
    pub(super) unheard: BTreeMap<(u64, usize), UnheardTask>,
    /// If the job has a name.
    pub(super) named: Option<NamedJob>,
}

impl ClusterDriver {
    pub(crate) async fn new(
        link: Link,
        shared: Arc<ClusterShared>,
        notes: UnboundedReceiver<ClusterNote>,
        held: Option<HeldJob>,
    ) -> Result<Self, NoAnswer> {
        let failed = |error: &dyn std::fmt::Display| NoAnswer(error.to_string());
        let subject = link.names.news_of_job(&shared.job);
        let news = link.client.subscribe(subject).await.map_err(|error| failed(&error))?;
        let leases = link.client.subscribe(link.names.lease(">")).await;
        let leases = leases.map_err(|error| failed(&error))?;
        let said = link.client.subscribe(link.names.said_in_job(&shared.job)).await;
        let said = said.map_err(|error| failed(&error))?;
        let mut gaps = link.gaps();
        gaps.mark_unchanged();
        // What was recorded before is asked for when its task is submitted.
        let seen = if held.is_some() { link.last_record().await? } else { 0 };
        let upkeep = Upkeep::new(&link, seen).await?;
        let named = held.map(|held| NamedJob::new(&link, &shared, held));
        Ok(Self {
            link,
            shared,
            notes,
            news,
            leases,
            said,
            gaps,
            tasks: HashMap::new(),
            next: 0,
            places: HashMap::new(),
            entering: VecDeque::new(),
            in_window: 0,
            waiting: BTreeMap::new(),
            waiting_members: 0,
            costs: TaskCosts::default(),
            running: BTreeMap::new(),
            seen,
            upkeep,
            errands: JoinSet::new(),
            ending: None,
            unheard: BTreeMap::new(),
            named,
        })
    }

    pub(crate) async fn run(mut self) {
        let mut ticks = interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.read_leases();
        loop {
            tokio::select! {
                note = self.notes.recv() => match note {
                    Some(note) => self.take(note),
                    None => return,
                },
                Some(message) = self.news.next() => self.hear(&message),
                Some(message) = self.said.next() => self.hear_said(&message),
                Some(message) = self.leases.next() => self.hear_lease(&message),
                Ok(()) = self.gaps.changed() => self.note_gap(),
                Some(_) = self.errands.join_next() => {}
                _ = ticks.tick() => self.tick(),
            }
            if self.has_ended() {
                return self.finish().await;
            }
        }
    }

    fn take(&mut self, note: ClusterNote) {
        match note {
            ClusterNote::Submitted { id, task, promise, options } => {
                self.submit(id, &task, promise, options);
            }
            ClusterNote::Cancelled(id) => {
                if let Some((id, member)) = self.place(id) {
                    self.apply(id, OwnerEvent::Cancelled(member), None);
                }
            }
            ClusterNote::Abandoned(id) => {
                let Some((id, member)) = self.place(id) else { return };
                let task = self.tasks.get(&id);
                if task.is_some_and(|task| task.owner.claim().is_none()) {
                    self.apply(id, OwnerEvent::Cancelled(member), None);
                }
            }
            ClusterNote::Leave(done) => self.begin_to_leave(done),
            ClusterNote::JobLost(error) => {
                if let Some(named) = &self.named {
                    named.is_lost();
                }
                self.break_all(error);
            }
            ClusterNote::ShutDown { how, done } => self.begin_to_end(how, done),
            ClusterNote::Event { id, event, body } => self.apply(id, event, body),
            ClusterNote::Fault { id, event, reason } => self.fault(id, event, reason),
            ClusterNote::Looked { id, seq, latest } => self.looked(id, seq, latest),
            ClusterNote::Upkeep(note) => self.upkeep_note(note),
        }
    }

    /// Where a task is: the number of its bundle, and which member it is.
    fn place(&self, id: TaskId) -> Option<(u64, Members)> {
        let place = *self.places.get(&id)?;
        Some((place, self.tasks.get(&place)?.member(id)?))
    }

    fn submit(
        &mut self,
        task_id: TaskId,
        task: &RemoteTask,
        promise: RemotePromise,
        options: TaskOptions,
    ) {
        if let Some(error) = self.upkeep.broken.clone() {
            let error = TaskError::PoolBroken(error);
            let ended = EndedTask { id: task_id, tasks: task.tasks(), lines: None, promise };
            return self.complete_with_error(ended, error);
        }
        let object = || format!("{}.{}.task", self.shared.job, self.next);
        let body = Arc::new(Body::of_task(task, object));
        let input = self.named.is_some().then(|| body.hash());
        let owner = TaskOwner::new(self.shared.attempts, input, fastrand::u64(..));
        let (name, tasks) = (task.name().to_owned(), task.tasks());
        let heard = HeardTask::default();
        let member = DrivenMember { task_id, name, body, options, promise, tasks, heard };
        let driven = DrivenTask { input, ..DrivenTask::new(owner, member) };
        let id = self.add(driven);
        self.entering.push_back(id);
        self.fill_window();
    }

    /// Gives a task a number.
    pub(super) fn add(&mut self, task: DrivenTask) -> u64 {
        let id = self.next;
        self.next += 1;
        let ids = task.members.iter().flatten().map(|member| (member.task_id, id));
        self.places.extend(ids);
        self.tasks.insert(id, task);
        id
    }

    /// A record that was stored.
    fn hear(&mut self, message: &Message) {
        let Some((_, id)) = job_and_id(&message.subject) else { return };
        let Some(RecordMessage { stored, body }) = RecordMessage::from_news(message) else {
            return;
        };
        self.seen = self.seen.max(stored.seq);
        self.apply(id, OwnerEvent::Observed(stored), Some(body));
    }

    fn hear_lease(&mut self, message: &Message) {
        let Some((_, instance)) = message.subject.rsplit_once('.') else { return };
        match serde_json::from_slice::<HostLease>(&message.payload) {
            // The stream does not tell its number here, and each renewal is a later one.
            Ok(lease) if lease.instance != instance => {}
            Ok(lease) => {
                let mut table = self.shared.table();
                let revision = table.revision(instance) + 1;
                table.renewed(lease, revision, Instant::now());
            }
            Err(_) => self.shared.table().ended(instance),
        }
    }

    /// Lets a task take an event, and does what it then asks for.
    pub(super) fn apply(&mut self, id: u64, event: OwnerEvent, body: Option<Bytes>) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if event.is_taken() {
            task.refused_since = None;
        }
        let attempt = task.owner.attempt();
        let actions = task.owner.handle(event);
        if task.owner.attempt() > attempt {
            self.shared.count(|stats| stats.retried += 1);
        }
        let (queued, claim) = (task.owner.queued(), task.owner.claim());
        let has_entered = queued.is_some() || claim.is_some() || task.owner.has_ended();
        let leaves = has_entered && std::mem::take(&mut task.is_entering);
        let members = task.members.len();
        match claim {
            Some(claim) => {
                if self.running.insert(id, claim.instance.clone()).is_none() {
                    self.shared.table().claimed(claim, Instant::now());
                }
            }
            None => drop(self.running.remove(&id)),
        }
        self.set_waiting(id, queued.map(|_| members));
        for action in actions {
            self.act(id, action, body.as_ref());
        }
        if leaves {
            self.in_window -= 1;
            self.fill_window();
        }
    }

    /// `members` is the number of members in the message, if the message is in the queue.
    fn set_waiting(&mut self, id: u64, members: Option<usize>) {
        match members {
            Some(members) => {
                if let Entry::Vacant(entry) = self.waiting.entry(id) {
                    entry.insert(WaitingMessage { since: Instant::now(), members });
                    self.waiting_members += members;
                }
            }
            None => {
                if let Some(waiting) = self.waiting.remove(&id) {
                    self.waiting_members -= waiting.members;
                }
            }
        }
    }

    fn act(&mut self, id: u64, action: OwnerAction, body: Option<&Bytes>) {
        match action {
            OwnerAction::Write { record, expect } => self.write(id, record, expect),
            OwnerAction::Read { nonce } => self.read(id, nonce),
            OwnerAction::Publish { attempt, seq } => {
                let task = self.tasks.get_mut(&id);
                let members = task.into_iter().flat_map(|task| task.members.iter_mut().flatten());
                members.for_each(|member| member.heard.is_whole = true);
                self.publish(id, attempt, seq);
            }
            OwnerAction::Began => {
                let members = self.tasks.get(&id).into_iter().flat_map(|task| &task.members);
                members.flatten().for_each(|member| member.promise.set_running(true));
            }
            OwnerAction::Results { new, all } => self.results(id, new, all, body),
            OwnerAction::Kill { instance, members } => self.kill(id, &instance, members),
            OwnerAction::End(end) => self.ended(id, &end),
        }
    }

    /// The server has refused: it is asked again in a while, and then the task fails.
    fn fault(&mut self, id: u64, event: OwnerEvent, reason: String) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let since = *task.refused_since.get_or_insert_with(Instant::now);
        if since.elapsed() < REFUSED_FOR {
            let notes = self.shared.notes.clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(500)).await;
                let _ = notes.send(ClusterNote::Event { id, event, body: None });
            });
        } else {
            let error = PoolError::Broker(format!("a task is refused: {reason}"));
            self.forget_on_server(id);
            self.give_up(id, TaskError::PoolBroken(error));
        }
    }

    fn looked(&mut self, id: u64, seq: u64, latest: Option<RecordMessage>) {
        match latest {
            Some(RecordMessage { stored, body }) => {
                self.apply(id, OwnerEvent::read(seq, stored), Some(body));
                let task = self.tasks.get_mut(&id);
                if let Some(task) = task.filter(|task| task.owner.queued() == Some(seq)) {
                    task.requeued += 1;
                    let ids = task.members.iter().flatten().map(|member| member.task_id);
                    let events: Vec<_> = ids.map(super::ClusterEvent::Requeued).collect();
                    self.shared.count(|stats| stats.requeued += 1);
                    events.into_iter().for_each(|event| self.shared.tell(event));
                    self.apply(id, OwnerEvent::MessageGone, None);
                }
            }
            None => {
                let task = self.tasks.get(&id);
                if task.is_some_and(|task| task.owner.queued() == Some(seq)) {
                    self.apply(id, OwnerEvent::RecordGone, None);
                }
            }
        }
    }

    /// Forgets a task, or the remaining tasks of a bundle. Another message may take the place in the window.
    pub(super) fn remove_task(&mut self, id: u64) -> Option<DrivenTask> {
        self.set_waiting(id, None);
        self.running.remove(&id);
        let task = self.tasks.remove(&id)?;
        for member in task.members.iter().flatten() {
            self.places.remove(&member.task_id);
        }
        if task.is_entering {
            self.in_window -= 1;
            self.fill_window();
        }
        Some(task)
    }

    /// Takes a task that is to be completed out of its bundle.
    pub(super) fn remove_member(&mut self, id: u64, member: usize) -> Option<DrivenMember> {
        let member = self.tasks.get_mut(&id)?.members.get_mut(member)?.take()?;
        self.places.remove(&member.task_id);
        Some(member)
    }
}
