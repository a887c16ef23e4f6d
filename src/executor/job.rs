//! A [`Job`]: a submitted task together with the promise of its output, without their types, so
//! that one queue can hold all kinds.

use std::fmt;
use std::sync::Weak;

use serde_json::value::RawValue;

use crate::blob::{self, Blob};
use crate::error::TaskError;
use crate::future::{self, Future, Patron, Promise};
use crate::guard;
use crate::task::{Context, Task, TaskId};
use crate::wire::Reply;

/// A submitted task and the promise of its output. Dropped, it cancels its future.
pub struct Job {
    id: TaskId,
    name: &'static str,
    work: Box<dyn Work>,
}

/// Whom the futures of an executor ask when they are cancelled.
#[derive(Clone)]
pub struct Canceller(pub(crate) Weak<dyn Patron>);

impl Job {
    pub(crate) fn new<T: Task>(task: T, canceller: Option<Canceller>) -> (Self, Future<T::Output>) {
        let id = TaskId::next();
        let (promise, future) = future::promise(id, canceller.map(|canceller| canceller.0));
        (Self { id, name: T::NAME, work: Box::new(Typed { task, promise }) }, future)
    }

    /// The id that the future has, too.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Runs the task here and keeps the promise.
    pub(crate) fn run(self, context: &Context) {
        self.work.run(context);
    }

    /// Ends the job without an output.
    pub(crate) fn fail(self, error: TaskError) {
        self.work.into_owed().fail(error);
    }

    /// Makes the task ready to travel. One that cannot be encoded ends here, with that error.
    pub(crate) fn encode(self) -> Option<Encoded> {
        let Self { id, name, work } = self;
        let (json, blobs) = blob::set_aside(|| guard::catch(|| work.encode()));
        let json = match json {
            Ok(Ok(json)) => Ok(json),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(panic.message),
        };
        let owed = work.into_owed();
        match json {
            Ok(json) => Some(Encoded { id, name, json, blobs, owed }),
            Err(reason) => {
                owed.fail(TaskError::Unencodable { what: "task".to_owned(), reason });
                None
            }
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, work: _ } = self;
        f.debug_struct("Job").field("id", id).field("name", name).finish_non_exhaustive()
    }
}

/// A job whose task was encoded: what a process pool keeps until the reply.
pub(crate) struct Encoded {
    pub id: TaskId,
    pub name: &'static str,
    pub json: String,
    /// What the text mentions.
    pub blobs: Vec<Blob>,
    pub owed: Box<dyn Owed>,
}

/// A promise without its type.
pub(crate) trait Owed: Send {
    fn set_running(&self, running: bool);
    fn answer(self: Box<Self>, reply: &Reply<&RawValue>);
    fn fail(self: Box<Self>, error: TaskError);
}

trait Work: Send {
    fn run(self: Box<Self>, context: &Context);
    fn encode(&self) -> serde_json::Result<String>;
    fn into_owed(self: Box<Self>) -> Box<dyn Owed>;
}

struct Typed<T: Task> {
    task: T,
    promise: Promise<T::Output>,
}

impl<T: Task> Work for Typed<T> {
    fn run(self: Box<Self>, context: &Context) {
        let Self { task, promise } = *self;
        promise.set_running(true);
        promise.fulfil(guard::run(task, context));
    }

    fn encode(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.task)
    }

    fn into_owed(self: Box<Self>) -> Box<dyn Owed> {
        // The task's own `Drop` is user code, too.
        let Self { task, promise } = *self;
        let _ = guard::catch(|| drop(task));
        Box::new(promise)
    }
}

impl<O: serde::de::DeserializeOwned + Send> Owed for Promise<O> {
    fn set_running(&self, running: bool) {
        Promise::set_running(self, running);
    }

    fn answer(self: Box<Self>, reply: &Reply<&RawValue>) {
        self.fulfil(reply.result());
    }

    fn fail(self: Box<Self>, error: TaskError) {
        self.fulfil(Err(error));
    }
}
