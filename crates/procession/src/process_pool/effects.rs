//! Carries out the actions of the scheduler, in two steps.
//!
//! | step | under the lock of the state | what it does |
//! |---|---|---|
//! | [`PoolInner::apply_actions`] | yes | changes that must have the order of the decisions: to the table of processes and to the outboxes |
//! | [`PoolInner::run_effects`] | no | I/O, signals, and everything that may call the user's code |

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use super::PoolEvent;
use super::completion::CompletionData;
use super::inner::PoolInner;
use super::pool_journal::LostTask;
use super::state::PoolState;
use super::supervisor::SupervisorMessage;
use super::work_item::WorkItem;
use super::worker_handle::{KillReason, Outgoing, TerminateOutcome, WorkerHandle};
use crate::executor::callbacks;
use crate::retries::Fault;
use crate::scheduler::{Action, Begun, Event, Verdict};
use crate::task::TaskId;

/// What remains to be done after the lock is released.
#[derive(Default)]
pub(super) struct DeferredEffects {
    /// Workers that have new calls in their outbox.
    flush: Vec<Arc<WorkerHandle>>,
    commands: Vec<(Arc<WorkerHandle>, Command)>,
    events: Vec<PoolEvent>,
    /// Tasks that have ended their workers and will run again.
    retried: Vec<(Arc<WorkItem>, u32, Verdict)>,
    /// For the journal.
    noted_retries: Vec<Retried>,
    completed: Vec<Completed>,
    /// The number of workers that are started in place of others.
    replaced: u64,
    /// The number of tasks that were asked to stop and are ended after their grace period.
    will_end: usize,
    is_end: bool,
}

/// A task that will be run again, for the journal.
struct Retried {
    task: TaskId,
    name: &'static str,
    fault: Fault,
    attempt: u32,
    pause: Duration,
}

/// Tasks of a work item, and how they ended.
type Completed = (Arc<WorkItem>, Range<u32>, Verdict);

/// An action on one worker, other than a call.
pub(super) enum Command {
    TakeBack(RangeInclusive<u64>),
    EndCall { seq: u64, allowed: Option<Duration> },
    AskToStop(u64),
    Dismiss,
    Kill { is_late: bool },
}

impl DeferredEffects {
    fn command(&mut self, handle: Option<&Arc<WorkerHandle>>, command: Command) {
        // `None`: the process has ended since then.
        self.commands.extend(handle.map(|handle| (Arc::clone(handle), command)));
    }

    fn flush(&mut self, handle: &Arc<WorkerHandle>) {
        if !self.flush.iter().any(|known| Arc::ptr_eq(known, handle)) {
            self.flush.push(Arc::clone(handle));
        }
    }
}

impl PoolInner {
    /// The first step, under the lock.
    #[expect(clippy::too_many_lines, reason = "a list of actions")]
    pub(super) fn apply_actions(
        &self,
        state: &mut PoolState,
        actions: Vec<Action<Arc<WorkItem>>>,
    ) -> DeferredEffects {
        let mut effects = DeferredEffects::default();
        for action in actions {
            match action {
                Action::Spawn { worker_id } => {
                    let (handle, is_replacement) = state.add_handle(worker_id);
                    self.counts().respawned += u64::from(is_replacement);
                    effects.replaced += u64::from(is_replacement);
                    let _ = self.supervisor.send(SupervisorMessage::Start(handle));
                }
                Action::Promote { worker_id, replaces } => {
                    self.counts().promoted += 1;
                    let (worker, pid) = (worker_id.worker_index, state.pid(worker_id));
                    effects.events.push(PoolEvent::SparePromoted { worker, pid, replaces });
                }
                Action::Send {
                    worker_id,
                    seq,
                    attempt,
                    stop_after,
                    job: work_item,
                    first,
                    count,
                } => {
                    let Some(handle) = state.handles.get(&worker_id) else { continue };
                    work_item.set_running(true);
                    if self.listeners.want_starts() {
                        let (worker, pid) = (worker_id.worker_index, handle.pid());
                        let started = |item| {
                            let task = work_item.id_of(item);
                            PoolEvent::TaskStarted { task, worker, pid, attempt }
                        };
                        effects.events.extend((first..first + count).map(started));
                    }
                    let items = first..first + count;
                    handle.enqueue(Outgoing { seq, attempt, stop_after, work_item, items });
                    effects.flush(handle);
                }
                Action::Recall { worker_id, from, through } => {
                    let command = Command::TakeBack(from..=through);
                    effects.command(state.handles.get(&worker_id), command);
                }
                Action::EndCall { worker_id, seq, allowed } => {
                    let command = Command::EndCall { seq, allowed };
                    effects.command(state.handles.get(&worker_id), command);
                }
                Action::AskToStop { worker_id, seq, will_end } => {
                    effects.will_end += usize::from(will_end);
                    effects.command(state.handles.get(&worker_id), Command::AskToStop(seq));
                }
                Action::Dismiss { worker_id, recycled } => {
                    effects.command(state.handles.get(&worker_id), Command::Dismiss);
                    if let Some(reason) = recycled {
                        let (worker, pid) = (worker_id.worker_index, state.pid(worker_id));
                        effects.events.push(PoolEvent::WorkerRecycled { worker, pid, reason });
                    }
                }
                Action::Kill { worker_id, is_late } => {
                    effects.command(state.handles.get(&worker_id), Command::Kill { is_late });
                }
                Action::Retry { job, first, fault, attempt, pause, ended } => {
                    job.set_running(false);
                    self.counts().retried += 1;
                    let task = job.id_of(first);
                    if self.listeners.journal().is_some() {
                        let name = job.name;
                        effects.noted_retries.push(Retried { task, name, fault, attempt, pause });
                    }
                    effects.events.push(PoolEvent::TaskRetried { task, fault, attempt, pause });
                    effects.retried.extend(ended.map(|ended| (job, first, ended)));
                }
                Action::Complete { job, first, count, verdict } => {
                    effects.completed.push((job, first..first + count, verdict));
                }
                Action::TakenBack { job, .. } => job.set_running(false),
                Action::End => effects.is_end = true,
            }
        }
        effects
    }

    /// The second step, without the lock. Returns the number of completions, and of tasks that will be
    /// completed after their grace period.
    pub(super) fn run_effects(
        &self,
        effects: DeferredEffects,
        data: Option<CompletionData<'_>>,
    ) -> usize {
        let DeferredEffects {
            flush,
            commands,
            events,
            retried,
            noted_retries,
            completed,
            replaced,
            will_end,
            is_end,
        } = effects;
        // The workers first, so that they do not wait for the program's code.
        for handle in flush {
            handle.flush();
        }
        for (handle, command) in commands {
            self.run_command(&handle, command);
        }
        self.listeners.measures.replaced(replaced);
        for event in events {
            self.listeners.event(|| event);
        }
        for (work_item, item, verdict) in retried {
            self.keep(&work_item, item, &verdict, data.as_ref());
        }
        self.record_retried(noted_retries, data.as_ref());
        let number = completed.len();
        if number > 0 {
            callbacks::deliver(self, || self.complete_all(completed, data.as_ref()));
        }
        if is_end {
            let _ = self.supervisor.send(SupervisorMessage::End);
            self.end.set();
        }
        number + will_end
    }

    fn record_retried(&self, retried: Vec<Retried>, data: Option<&CompletionData<'_>>) {
        let Some(journal) = self.listeners.journal() else { return };
        let by = match data {
            Some(CompletionData::Death { worker, pid, .. }) => Some((*worker, *pid)),
            Some(CompletionData::Replies { handle, .. }) => Some((handle.worker(), handle.pid())),
            None => None,
        };
        for Retried { task: id, name, fault, attempt, pause } in retried {
            let label = data.and_then(|data| data.label(id));
            journal.retried(&LostTask { id, name, label, by }, fault, attempt, pause);
        }
    }

    fn run_command(&self, handle: &WorkerHandle, command: Command) {
        match command {
            Command::TakeBack(seqs) => self.report_returned(handle, handle.take_back(seqs)),
            Command::EndCall { seq, allowed } => {
                let (outcome, returned) = handle.end_call(seq, allowed);
                self.report_returned(handle, returned);
                if let TerminateOutcome::Postponed(claimed) = outcome {
                    self.handle(Event::NotEnded { worker_id: handle.worker_id, seq, claimed });
                }
            }
            Command::AskToStop(seq) => self.report_returned(handle, handle.ask_to_stop(seq)),
            Command::Dismiss => handle.dismiss(),
            Command::Kill { is_late } => {
                handle.kill(if is_late { KillReason::Late } else { KillReason::Unneeded });
            }
        }
    }

    fn report_returned(&self, handle: &WorkerHandle, calls: Vec<Begun>) {
        if !calls.is_empty() {
            self.handle(Event::Returned { worker_id: handle.worker_id, calls });
        }
    }

    fn complete_all(&self, completed: Vec<Completed>, data: Option<&CompletionData<'_>>) {
        let mut emptied = Vec::with_capacity(completed.len());
        for (mut work_item, items, verdict) in completed {
            self.complete(&work_item, items, verdict, data);
            if Arc::get_mut(&mut work_item).is_some_and(WorkItem::clear) {
                emptied.push(work_item);
            }
        }
        self.item_pool.put_back(emptied);
    }
}
