//! A [`Job`]: a submitted task together with the promise of its output, without their types, so
//! that one queue can hold all kinds.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, Weak};

use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

use crate::blob::Blob;
use crate::codec::{self, Refusal};
use crate::error::TaskError;
use crate::future::{self, Core, Future, Promise, TaskControl};
use crate::panics;
use crate::task::{Context, Task, TaskId};
use crate::transport::Reply;

/// A submitted task and the promise of its output. Dropped, it cancels its future.
pub struct Job {
    id: TaskId,
    name: &'static str,
    work: Box<dyn Work>,
}

/// Whom the futures of an executor ask when they are cancelled.
#[derive(Clone)]
pub struct Canceller(pub(crate) Weak<dyn TaskControl>);

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
        let encoded = encode(&*work);
        let owed = work.into_owed();
        match encoded {
            Ok((text, blobs)) => Some(Encoded { id, name, text, blobs, owed }),
            Err(refusal) => {
                owed.fail(refusal.into_error("task", name));
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

/// An encoded task. Short ones, as most are, need no memory of their own.
pub(crate) type Text = SmallVec<[u8; SHORT]>;
const SHORT: usize = 64;

/// A job whose task was encoded: what a process pool keeps until the reply.
pub(crate) struct Encoded {
    pub id: TaskId,
    pub name: &'static str,
    pub text: Text,
    /// What the text mentions.
    pub blobs: Vec<Blob>,
    pub owed: AnyPromise,
}

/// A promise without its type. Dropped unkept, it cancels its future.
///
/// It is made of what the promise and its future share, so it needs no memory of its own: what one
/// thread allocates for each task and another one frees is what they get into each other's way for.
pub(crate) struct AnyPromise {
    whom: Option<Arc<dyn Awaiting>>,
}

/// What a promise and its future share, without its type.
trait Awaiting: Send + Sync {
    fn set_running(&self, running: bool);
    fn answer(self: Arc<Self>, reply: &Reply<'_>);
    fn fail(self: Arc<Self>, error: TaskError);
}

impl AnyPromise {
    pub(crate) fn new<O: Serialize + DeserializeOwned + Send + 'static>(
        promise: Promise<O>,
    ) -> Self {
        Self { whom: Some(promise.into_core()) }
    }

    pub(crate) fn set_running(&self, running: bool) {
        if let Some(whom) = &self.whom {
            whom.set_running(running);
        }
    }

    pub(crate) fn answer(mut self, reply: &Reply<'_>) {
        if let Some(whom) = self.whom.take() {
            whom.answer(reply);
        }
    }

    pub(crate) fn fail(mut self, error: TaskError) {
        if let Some(whom) = self.whom.take() {
            whom.fail(error);
        }
    }
}

impl Drop for AnyPromise {
    fn drop(&mut self) {
        if let Some(whom) = self.whom.take() {
            whom.fail(TaskError::Cancelled);
        }
    }
}

impl<O: Serialize + DeserializeOwned + Send + 'static> Awaiting for Core<O> {
    fn set_running(&self, running: bool) {
        Core::set_running(self, running);
    }

    fn answer(self: Arc<Self>, reply: &Reply<'_>) {
        self.keep(reply.result());
    }

    fn fail(self: Arc<Self>, error: TaskError) {
        self.keep(Err(error));
    }
}

/// Encodes by way of a buffer that each thread keeps for the next time.
fn encode(work: &dyn Work) -> Result<(Text, Vec<Blob>), Refusal> {
    /// A larger one is better handed over than copied, and nothing to keep.
    const KEPT: usize = 4096;
    thread_local!(static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });
    // What is encoded may itself submit tasks: they would find another buffer.
    let mut buffer = BUFFER.take();
    let encoded = work.encode(&mut buffer);
    let encoded = encoded.map(|blobs| match buffer.len() {
        len if len <= KEPT => (Text::from_slice(&buffer), blobs),
        _ => (Text::from_vec(std::mem::take(&mut buffer)), blobs),
    });
    if buffer.capacity() <= KEPT {
        buffer.clear();
        BUFFER.set(buffer);
    }
    encoded
}

trait Work: Send {
    fn run(self: Box<Self>, context: &Context);
    fn encode(&self, into: &mut Vec<u8>) -> Result<Vec<Blob>, Refusal>;
    fn into_owed(self: Box<Self>) -> AnyPromise;
}

struct Typed<T: Task> {
    task: T,
    promise: Promise<T::Output>,
}

impl<T: Task> Work for Typed<T> {
    fn run(self: Box<Self>, context: &Context) {
        let Self { task, promise } = *self;
        promise.set_running(true);
        promise.fulfil(panics::run(task, context));
    }

    fn encode(&self, into: &mut Vec<u8>) -> Result<Vec<Blob>, Refusal> {
        codec::encode(T::ENCODING, &self.task, into)
    }

    fn into_owed(self: Box<Self>) -> AnyPromise {
        let Self { task, promise } = *self;
        panics::discard(task);
        AnyPromise::new(promise)
    }
}
