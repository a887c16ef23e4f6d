//! Prevents deadlocks of threads that wait for tasks: [`begin`] is called before each such wait.
//!
//! Executors call the program's code on threads of their own: callbacks, functions such as `on_event`,
//! `Deserialize`, and tasks, where these run on threads. That code may wait for a task of the same
//! executor, and its thread may be the one that has to run that task, or to deliver its result. So
//! such a thread has a role, held by a [`RoleGuard`]:
//!
//! | role | of | before it waits |
//! |---|---|---|
//! | serves | threads that call callbacks or run tasks | another thread continues its queue ([`HandOver`]) |
//! | delivers | threads that complete futures | a wait for a task of the same executor is refused: [`TaskError::WouldDeadlock`] |
//! | listens | the same, while they call a function such as `on_event` | the same, also where a poll would be `Pending`: the function cannot be continued later |
//!
//! A wait without a timeout is also refused if it closes a cycle: the awaited task cannot end before a task that
//! the waiting thread has to end ([`Obligation`]).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::LocalKey;

use crate::error::TaskError;
use crate::future::TaskControl;
use crate::task::TaskId;

/// A queue of work whose thread can be replaced while it waits.
pub(crate) trait HandOver: Send + Sync {
    /// This thread is about to wait: another one continues the queue, if there is work. Returns false
    /// if none can be started.
    fn hand_over(self: Arc<Self>) -> bool;

    /// The wait is over. Returns whether this thread continues the queue again; otherwise another
    /// thread still does.
    fn take_back(&self) -> bool;
}

/// Takes calls of callbacks that must not run on the thread that completes a future.
pub(crate) trait CallSink: Send + Sync {
    fn call(self: Arc<Self>, call: CallbackCall);
}

pub(crate) type CallbackCall = Box<dyn FnOnce() + Send>;

/// A task that a thread waits for, and its executor.
#[derive(Clone, Copy)]
pub(crate) struct AwaitedTask<'t> {
    pub id: TaskId,
    pub executor: Option<&'t Weak<dyn TaskControl>>,
}

/// What ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// All of its tasks.
    All,
    /// Any of its tasks.
    Any,
    /// A deadline, if not a task before.
    Time,
}

thread_local! {
    /// The roles of this thread, the innermost last.
    static ROLES: RefCell<Vec<Role>> = const { RefCell::new(Vec::new()) };
    /// Takes calls of callbacks. `None`: they are called at once.
    static CALL_SINK: RefCell<Option<Arc<dyn CallSink>>> = const { RefCell::new(None) };
    /// Tasks that cannot end before this thread continues.
    static OBLIGATIONS: RefCell<Vec<TaskId>> = const { RefCell::new(Vec::new()) };
}

/// Uses a variable of this thread. In destructors at the end of a thread it may be gone; such a thread has no role.
fn with<T, R: Default>(
    variable: &'static LocalKey<RefCell<T>>,
    use_it: impl FnOnce(&mut T) -> R,
) -> R {
    variable.try_with(|value| use_it(&mut value.borrow_mut())).unwrap_or_default()
}

struct Role {
    /// The address of the executor.
    executor: usize,
    duty: Duty,
}

enum Duty {
    Delivers,
    Listens,
    Serves(Option<Rc<Service>>),
}

struct Service {
    queue: Arc<dyn HandOver>,
    /// The queue was handed over and not taken back.
    is_replaced: Cell<bool>,
}

impl Service {
    fn take_back(&self) {
        if self.is_replaced.get() {
            self.is_replaced.set(!self.queue.take_back());
        }
    }
}

/// The role of a thread, until this is dropped.
pub(crate) struct RoleGuard(Option<Rc<Service>>);

impl RoleGuard {
    /// The thread completes futures of this executor.
    pub(crate) fn delivers(executor: usize) -> Self {
        push(Role { executor, duty: Duty::Delivers });
        Self(None)
    }

    /// The same, while it calls a function that the program has set for this executor.
    pub(crate) fn listens(executor: usize) -> Self {
        push(Role { executor, duty: Duty::Listens });
        Self(None)
    }

    /// The thread calls the program's code for this executor. `queue` is what another
    /// thread continues while this one waits, if there is anything to continue.
    pub(crate) fn serves(executor: usize, queue: Option<Arc<dyn HandOver>>) -> Self {
        let service = queue.map(|queue| Rc::new(Service { queue, is_replaced: Cell::new(false) }));
        push(Role { executor, duty: Duty::Serves(service.clone()) });
        Self(service)
    }

    /// Whether the queue was handed over and not taken back.
    pub(crate) fn is_replaced(&self) -> bool {
        self.0.as_ref().is_some_and(|service| service.is_replaced.get())
    }

    /// This thread continues the queue again, as decided by the caller.
    pub(crate) fn set_taken_back(&self) {
        if let Some(service) = &self.0 {
            service.is_replaced.set(false);
        }
    }

    /// Takes the queue back, if it was handed over.
    pub(crate) fn take_back(&self) {
        if let Some(service) = &self.0 {
            service.take_back();
        }
    }
}

impl Drop for RoleGuard {
    fn drop(&mut self) {
        with(&ROLES, Vec::pop);
    }
}

fn push(role: Role) {
    with(&ROLES, |roles| roles.push(role));
}

/// The address that identifies an executor.
pub(crate) fn address<E: ?Sized>(executor: *const E) -> usize {
    executor.cast::<()>().addr()
}

/// Whether this thread has a role in this executor.
pub(crate) fn is_within(executor: usize) -> bool {
    with(&ROLES, |roles| roles.iter().any(|role| role.executor == executor))
}

/// Whether this thread has any role.
pub(crate) fn has_role() -> bool {
    with(&ROLES, |roles| !roles.is_empty())
}

/// Sends the calls of callbacks of this thread to a sink, until this is dropped.
pub(crate) struct CallSinkGuard(Option<Arc<dyn CallSink>>);

impl CallSinkGuard {
    pub(crate) fn new(sink: Arc<dyn CallSink>) -> Self {
        Self(with(&CALL_SINK, |current| current.replace(sink)))
    }
}

impl Drop for CallSinkGuard {
    fn drop(&mut self) {
        with(&CALL_SINK, |current| *current = self.0.take());
    }
}

pub(crate) fn has_sink() -> bool {
    with(&CALL_SINK, |sink| sink.is_some())
}

/// Makes a call: by the sink of this thread, or at once.
pub(crate) fn call(call: CallbackCall) {
    match with(&CALL_SINK, |sink| sink.clone()) {
        Some(sink) => sink.call(call),
        None => call(),
    }
}

/// A task that cannot end before this thread continues, until this is dropped.
pub(crate) struct Obligation(());

impl Obligation {
    pub(crate) fn to_end(task: TaskId) -> Self {
        with(&OBLIGATIONS, |tasks| tasks.push(task));
        Self(())
    }
}

impl Drop for Obligation {
    fn drop(&mut self) {
        with(&OBLIGATIONS, Vec::pop);
    }
}

/// A wait, until this is dropped.
#[derive(Default)]
pub(crate) struct Waiting {
    handed_over: Vec<Rc<Service>>,
    /// Its number in `WAITS`.
    number: Option<u64>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            waits().retain(|wait| wait.number != number);
        }
        for service in self.handed_over.drain(..).rev() {
            service.take_back();
        }
    }
}

/// Called before this thread waits for tasks; without targets, before it waits for anything else.
pub(crate) fn begin<'t>(
    targets: impl IntoIterator<Item = AwaitedTask<'t>>,
    need: Need,
) -> Result<Waiting, TaskError> {
    if !has_role() {
        return Ok(Waiting::default());
    }
    let targets: Vec<_> = targets.into_iter().collect();
    if targets.iter().any(is_delivered_here) {
        return Err(TaskError::WouldDeadlock);
    }
    let mut waiting = Waiting::default();
    if need != Need::Time && !targets.is_empty() {
        waiting.number = Some(register(&targets, need == Need::All)?);
    }
    prioritize_and_hand_over(&targets, Some(&mut waiting.handed_over))?;
    Ok(waiting)
}

/// Called before a future returns `Poll::Pending` on this thread, which may then block in its async
/// runtime until the task is done. An error is what the future returns in place of that: here the runtime would
/// block for ever.
pub(crate) fn before_pending(target: AwaitedTask<'_>) -> Result<(), TaskError> {
    if !has_role() {
        return Ok(());
    }
    if has_duty(&target, |duty| matches!(duty, Duty::Listens)) {
        return Err(TaskError::WouldDeadlock);
    }
    if !is_delivered_here(&target) {
        // A thread may be started later.
        let _ = prioritize_and_hand_over(&[target], None);
    }
    Ok(())
}

fn is_delivered_here(target: &AwaitedTask<'_>) -> bool {
    has_duty(target, |duty| matches!(duty, Duty::Delivers | Duty::Listens))
}

/// Whether this thread has such a duty in the executor of the task.
fn has_duty(target: &AwaitedTask<'_>, is_such: impl Fn(&Duty) -> bool) -> bool {
    let Some(executor) = target.executor.map(|executor| address(executor.as_ptr())) else {
        return false;
    };
    with(&ROLES, |roles| roles.iter().any(|it| it.executor == executor && is_such(&it.duty)))
}

/// Hands the queues of this thread over, and asks the executors to run the targets.
fn prioritize_and_hand_over(
    targets: &[AwaitedTask<'_>],
    mut handed_over: Option<&mut Vec<Rc<Service>>>,
) -> Result<(), TaskError> {
    let services: Vec<_> = with(&ROLES, |roles| {
        let service = |role: &Role| match &role.duty {
            Duty::Serves(service) => service.clone(),
            Duty::Delivers | Duty::Listens => None,
        };
        roles.iter().filter_map(service).filter(|service| !service.is_replaced.get()).collect()
    });
    for service in services {
        if !Arc::clone(&service.queue).hand_over() {
            return Err(TaskError::WouldDeadlock);
        }
        service.is_replaced.set(true);
        if let Some(handed_over) = &mut handed_over {
            handed_over.push(service);
        }
    }
    for target in targets {
        if let Some(executor) = target.executor.and_then(Weak::upgrade)
            && !executor.prioritize(target.id)
        {
            return Err(TaskError::WouldDeadlock);
        }
    }
    Ok(())
}

/// A wait without a deadline, of a thread with a role.
struct Wait {
    number: u64,
    /// Tasks that cannot end before the wait does.
    obligations: Vec<TaskId>,
    awaited: Vec<TaskId>,
    needs_all: bool,
}

static WAITS: Mutex<Vec<Wait>> = Mutex::new(Vec::new());

fn waits() -> MutexGuard<'static, Vec<Wait>> {
    WAITS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a wait to `WAITS`, unless it would never end.
fn register(targets: &[AwaitedTask<'_>], needs_all: bool) -> Result<u64, TaskError> {
    let awaited: Vec<_> = targets.iter().map(|target| target.id).collect();
    let obligations = with(&OBLIGATIONS, |tasks| tasks.clone());
    let mut waits = waits();
    let number = waits.last().map_or(0, |last| last.number + 1);
    let wait = Wait { number, obligations, awaited, needs_all };
    if never_ends(&wait, &wait.obligations, &waits, &mut Vec::new()) {
        return Err(TaskError::WouldDeadlock);
    }
    waits.push(wait);
    Ok(number)
}

/// Whether a wait cannot end before one of `blocked` does. `seen` are the waits on the path to it.
fn never_ends(wait: &Wait, blocked: &[TaskId], waits: &[Wait], seen: &mut Vec<u64>) -> bool {
    seen.push(wait.number);
    let mut is_stuck = |task: &TaskId| {
        blocked.contains(task)
            || waits.iter().any(|other| {
                other.obligations.contains(task)
                    && !seen.contains(&other.number)
                    && never_ends(other, blocked, waits, seen)
            })
    };
    match wait.needs_all {
        true => wait.awaited.iter().any(&mut is_stuck),
        false => wait.awaited.iter().all(&mut is_stuck),
    }
}
