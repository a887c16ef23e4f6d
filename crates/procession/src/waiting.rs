//! What a thread has to do before it waits for a task.
//!
//! Executors call the program's code on threads of their own: callbacks, listeners, `Deserialize`,
//! and tasks, where these run on threads. That code may wait for a task of the same executor, and
//! its thread may be the one that would have to run that task, or to deliver its result. So such a
//! thread has a role, and each wait begins with [`begin`]:
//!
//! - A thread that **serves** calls callbacks, or runs tasks. Before it waits, another thread goes
//!   on with what it would have done next ([`StandIn`]).
//! - A thread that **delivers** results cannot be replaced in the middle of that. A wait for a task
//!   of its own executor is refused with [`TaskError::WouldDeadlock`].
//!
//! A wait is also refused where it would close a circle: the thread waits, without an end, for a
//! task that cannot end before one that this thread has to end itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::error::TaskError;
use crate::future::TaskControl;
use crate::task::TaskId;

/// Goes on in place of a thread that is about to wait.
pub(crate) trait StandIn: Send + Sync {
    /// Another thread takes over; false if it should and cannot.
    fn leave(self: Arc<Self>) -> bool;

    /// The wait is over. Gives whether this thread has its work again, and not another one.
    fn come_back(&self) -> bool;
}

/// Takes the calls of callbacks that cannot be made on the thread that completes a future.
pub(crate) trait ReplySender: Send + Sync {
    fn call(self: Arc<Self>, call: Call);
}

pub(crate) type Call = Box<dyn FnOnce() + Send>;

/// A task that is waited for, and the executor that has it.
#[derive(Clone, Copy)]
pub(crate) struct Target<'t> {
    pub id: TaskId,
    pub executor: Option<&'t Weak<dyn TaskControl>>,
}

/// What ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// All of its tasks have to end.
    All,
    /// One of them.
    Any,
    /// It ends at a certain time, if not before.
    Time,
}

thread_local! {
    /// Of this thread, the innermost last.
    static ROLES: RefCell<Vec<Role>> = const { RefCell::new(Vec::new()) };
    /// Where calls of callbacks go; without one they are made at once.
    static OUTLET: RefCell<Option<Arc<dyn ReplySender>>> = const { RefCell::new(None) };
    /// The tasks that cannot end before this thread goes on.
    static OWED: RefCell<Vec<TaskId>> = const { RefCell::new(Vec::new()) };
}

struct Role {
    /// By its address.
    executor: usize,
    duty: Duty,
}

enum Duty {
    Delivers,
    Serves(Option<Rc<Service>>),
}

struct Service {
    stand_in: Arc<dyn StandIn>,
    /// Another thread may have taken over.
    is_away: Cell<bool>,
}

impl Service {
    fn come_back(&self) {
        if self.is_away.get() {
            self.is_away.set(!self.stand_in.come_back());
        }
    }
}

/// A role, as long as this lives.
pub(crate) struct Acting(Option<Rc<Service>>);

impl Acting {
    /// The thread delivers results of this executor.
    pub(crate) fn delivers(executor: usize) -> Self {
        push(Role { executor, duty: Duty::Delivers });
        Self(None)
    }

    /// The thread calls the program's code for this executor; where nothing else depends on the
    /// thread, there is no need of a stand-in.
    pub(crate) fn serves(executor: usize, stand_in: Option<Arc<dyn StandIn>>) -> Self {
        let service =
            stand_in.map(|stand_in| Rc::new(Service { stand_in, is_away: Cell::new(false) }));
        push(Role { executor, duty: Duty::Serves(service.clone()) });
        Self(service)
    }

    /// Whether another thread has taken over and this one has not come back.
    pub(crate) fn is_away(&self) -> bool {
        self.0.as_ref().is_some_and(|service| service.is_away.get())
    }

    /// The thread has its work again.
    pub(crate) fn is_back(&self) {
        if let Some(service) = &self.0 {
            service.is_away.set(false);
        }
    }

    /// The thread wants its work again, if it is away.
    pub(crate) fn come_back(&self) {
        if let Some(service) = &self.0 {
            service.come_back();
        }
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        ROLES.with_borrow_mut(Vec::pop);
    }
}

fn push(role: Role) {
    ROLES.with_borrow_mut(|roles| roles.push(role));
}

/// The address by which an executor is known.
pub(crate) fn address<E: ?Sized>(executor: *const E) -> usize {
    executor.cast::<()>().addr()
}

/// Whether this thread has a role in this executor.
pub(crate) fn is_within(executor: usize) -> bool {
    ROLES.with_borrow(|roles| roles.iter().any(|role| role.executor == executor))
}

/// Whether this thread has any role.
pub(crate) fn has_role() -> bool {
    ROLES.with_borrow(|roles| !roles.is_empty())
}

/// Sends calls of callbacks there, as long as it lives.
pub(crate) struct Through(Option<Arc<dyn ReplySender>>);

impl Through {
    pub(crate) fn reply_sender(reply_sender: Arc<dyn ReplySender>) -> Self {
        Self(OUTLET.replace(Some(reply_sender)))
    }
}

impl Drop for Through {
    fn drop(&mut self) {
        OUTLET.set(self.0.take());
    }
}

pub(crate) fn has_outlet() -> bool {
    OUTLET.with_borrow(Option::is_some)
}

/// Has a call made, here or elsewhere.
pub(crate) fn call(call: Call) {
    match OUTLET.with_borrow(Clone::clone) {
        Some(reply_sender) => reply_sender.call(call),
        None => call(),
    }
}

/// Notes, as long as it lives, that a task cannot end before this thread goes on.
pub(crate) struct Owing(());

impl Owing {
    pub(crate) fn the_end_of(task: TaskId) -> Self {
        OWED.with_borrow_mut(|owed| owed.push(task));
        Self(())
    }
}

impl Drop for Owing {
    fn drop(&mut self) {
        OWED.with_borrow_mut(Vec::pop);
    }
}

/// A wait that goes on, as long as this lives.
#[derive(Default)]
pub(crate) struct Waiting {
    left: Vec<Rc<Service>>,
    noted_as: Option<u64>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(number) = self.noted_as {
            waits().retain(|wait| wait.number != number);
        }
        for service in self.left.drain(..).rev() {
            service.come_back();
        }
    }
}

/// To be called before this thread waits for tasks, or for anything else, without targets.
pub(crate) fn begin<'t>(
    targets: impl IntoIterator<Item = Target<'t>>,
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
        waiting.noted_as = Some(note(&targets, need == Need::All)?);
    }
    hasten_and_leave(&targets, Some(&mut waiting.left))?;
    Ok(waiting)
}

/// To be called where this thread asks for a task that is not done, and may go to sleep until it
/// is, by means of its own.
pub(crate) fn may_follow(target: Target<'_>) {
    if has_role() && !is_delivered_here(&target) {
        // If no thread could be started, one may be in time.
        let _ = hasten_and_leave(&[target], None);
    }
}

fn is_delivered_here(target: &Target<'_>) -> bool {
    let Some(executor) = target.executor.map(|executor| address(executor.as_ptr())) else {
        return false;
    };
    let delivers = |role: &Role| role.executor == executor && matches!(role.duty, Duty::Delivers);
    ROLES.with_borrow(|roles| roles.iter().any(delivers))
}

/// Sees to it that the tasks are run, and that others go on with what this thread has to do.
fn hasten_and_leave(
    targets: &[Target<'_>],
    mut left: Option<&mut Vec<Rc<Service>>>,
) -> Result<(), TaskError> {
    let services: Vec<_> = ROLES.with_borrow(|roles| {
        let service = |role: &Role| match &role.duty {
            Duty::Serves(service) => service.clone(),
            Duty::Delivers => None,
        };
        roles.iter().filter_map(service).filter(|service| !service.is_away.get()).collect()
    });
    for service in services {
        if !Arc::clone(&service.stand_in).leave() {
            return Err(TaskError::WouldDeadlock);
        }
        service.is_away.set(true);
        if let Some(left) = &mut left {
            left.push(service);
        }
    }
    for target in targets {
        if let Some(executor) = target.executor.and_then(Weak::upgrade)
            && !executor.hasten(target.id)
        {
            return Err(TaskError::WouldDeadlock);
        }
    }
    Ok(())
}

/// A wait without an end of its own, of a thread that others may wait for.
struct Wait {
    number: u64,
    /// What cannot end before.
    owed: Vec<TaskId>,
    awaited: Vec<TaskId>,
    needs_all: bool,
}

static WAITS: Mutex<Vec<Wait>> = Mutex::new(Vec::new());

fn waits() -> MutexGuard<'static, Vec<Wait>> {
    WAITS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a wait, if it can come to an end.
fn note(targets: &[Target<'_>], needs_all: bool) -> Result<u64, TaskError> {
    let awaited: Vec<_> = targets.iter().map(|target| target.id).collect();
    let owed = OWED.with_borrow(Clone::clone);
    let mut waits = waits();
    let number = waits.last().map_or(0, |last| last.number + 1);
    let wait = Wait { number, owed, awaited, needs_all };
    if never_ends(&wait, &wait.owed, &waits, &mut Vec::new()) {
        return Err(TaskError::WouldDeadlock);
    }
    waits.push(wait);
    Ok(number)
}

/// Whether a wait cannot end before tasks of these.
fn never_ends(wait: &Wait, owed: &[TaskId], waits: &[Wait], seen: &mut Vec<u64>) -> bool {
    seen.push(wait.number);
    let mut is_stuck = |task: &TaskId| {
        owed.contains(task)
            || waits.iter().any(|other| {
                other.owed.contains(task)
                    && !seen.contains(&other.number)
                    && never_ends(other, owed, waits, seen)
            })
    };
    match wait.needs_all {
        true => wait.awaited.iter().any(&mut is_stuck),
        false => wait.awaited.iter().all(&mut is_stuck),
    }
}
