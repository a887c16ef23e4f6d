//! Partial results from worker processes that end, lie, or send what is large.

use libtest_mimic::Trial;
use procession::{
    Blob, Context, Executor, Failure, PartialError, Registry, Retries, Task, TaskError,
};
use serde::{Deserialize, Serialize};

use crate::tasks::{self, Emit, Ending};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        each_attempt_begins_anew_and_its_values_say_so,
        what_is_large_or_has_blobs_arrives,
        a_value_that_cannot_be_encoded_is_an_error_of_the_task,
        what_an_initializer_or_a_task_of_a_map_emits_harms_nobody,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<EmitBlobs>()
}

/// Emits texts and blobs of these lengths.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct EmitBlobs(Vec<usize>);

impl Task for EmitBlobs {
    const NAME: &'static str = "EmitBlobs";
    type Output = String;
    fn run(self, context: &Context) -> Result<String, Failure> {
        for len in self.0 {
            context.emit(&("x".repeat(len), Blob::from(vec![7; len])))?;
        }
        let refused = context.emit(&tasks::Refuses).expect_err("refused");
        Ok(refused.to_string())
    }
}

fn each_attempt_begins_anew_and_its_values_say_so() {
    let pool = tasks::quiet().workers(1).retries(Retries::times(2)).build().expect("a pool");
    let texts = vec!["a".to_owned(), "b".to_owned()];
    let future = pool.submit(Emit(texts, None, Ending::Abort));
    let partials: Vec<_> = future.partials::<String>().collect();
    let told = partials.iter().map(|partial| {
        let partial = partial.as_ref().expect("a value");
        (partial.value.as_str(), partial.attempt)
    });
    assert!(told.eq((1..=3).flat_map(|attempt| [("a", attempt), ("b", attempt)])), "{partials:?}");
    assert!(matches!(future.result(), Err(TaskError::WorkerDied(_))));
}

fn what_is_large_or_has_blobs_arrives() {
    let pool = tasks::quiet().workers(1).build().expect("a pool");
    let lens = [1, 300_000, 20, 40_000, 0, 1_000_000];
    let future = pool.submit(EmitBlobs(lens.to_vec()));
    let partials: Vec<_> = future.partials::<(String, Blob)>().collect();
    assert_eq!(partials.len(), lens.len());
    for (partial, len) in partials.into_iter().zip(lens) {
        let (text, blob) = partial.expect("a value").value;
        assert_eq!((text.len(), &*blob), (len, &*vec![7; len]));
    }
}

fn a_value_that_cannot_be_encoded_is_an_error_of_the_task() {
    let pool = tasks::quiet().workers(1).build().expect("a pool");
    let refused = pool.submit(EmitBlobs(Vec::new())).result().expect("an output");
    assert_eq!(refused, "cannot encode the partial result: it will not");
}

fn what_an_initializer_or_a_task_of_a_map_emits_harms_nobody() {
    let emit = |n: usize| Emit(vec![n.to_string(); 5], None, Ending::None);
    let pool = tasks::quiet().workers(1).initializer(emit(0)).build().expect("a pool");
    assert!(pool.map((0..2_000).map(emit)).all(|result| result.is_ok()));
    let partials: Vec<_> = pool.submit(emit(3)).partials::<String>().collect();
    let is_own = |partial: &Result<_, PartialError>| match partial {
        Ok(procession::Partial { value, .. }) => value == "3",
        Err(_) => false,
    };
    assert!(partials.len() == 5 && partials.iter().all(is_own), "{partials:?}");
}
