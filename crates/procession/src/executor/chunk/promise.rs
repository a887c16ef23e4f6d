//! [`ChunkPromise`]: what completes the results of a chunk.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::AnyChunkPromise;
use super::results_core::ResultsCore;
use crate::codec::{self, Refusal, TypedEncoding};
use crate::error::TaskError;
use crate::panics;
use crate::transport::Reply;

/// The executor's side of a chunk. On drop, the tasks that are not complete are completed with
/// [`TaskError::Cancelled`].
struct ChunkPromise<F, O> {
    state: Arc<ResultsCore<O>>,
    task: &'static str,
    /// The encoding of the outputs.
    form: PhantomData<fn() -> F>,
}

/// The executor's side of a chunk whose outputs are in this encoding.
pub(super) fn promise_of<F, O>(
    state: Arc<ResultsCore<O>>,
    task: &'static str,
) -> Box<dyn AnyChunkPromise>
where
    F: TypedEncoding + 'static,
    O: Serialize + DeserializeOwned + Send + 'static,
{
    Box::new(ChunkPromise { state, task, form: PhantomData::<fn() -> F> })
}

impl<F, O> AnyChunkPromise for ChunkPromise<F, O>
where
    F: TypedEncoding,
    O: Serialize + DeserializeOwned + Send,
{
    fn complete_with(&self, item: u32, reply: &Reply<'_>) {
        let result = reply.result_of(self.task, codec::decode_only::<F, O>);
        self.state.put(item as usize, vec![result.map_err(Box::new)]);
    }

    fn complete(&self, first: u32, outputs: &[&[u8]]) -> usize {
        let undecodable =
            |refusal: Refusal| Box::new(refusal.into_undecodable("output", self.task));
        let mut results = Vec::with_capacity(outputs.len());
        while results.len() < outputs.len() {
            // `Deserialize` is the program's code. After a panic the loop continues with the next one.
            let decoded = panics::catch(|| {
                for output in &outputs[results.len()..] {
                    results.push(codec::read::<F, O>(output).map_err(undecodable));
                }
            });
            if let Err(panic) = decoded {
                results.push(Err(undecodable(Refusal::new(panic.message))));
            }
        }
        self.state.put(first as usize, results)
    }

    fn fail(&self, items: Range<u32>, error: &TaskError) -> usize {
        self.state.fail(items.start as usize..items.end as usize, error)
    }
}

impl<F, O> Drop for ChunkPromise<F, O> {
    fn drop(&mut self) {
        self.state.fail(0..usize::MAX, &TaskError::Cancelled);
    }
}
