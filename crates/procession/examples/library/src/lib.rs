//! A library with a pool inside: it counts words in worker processes. Its user owns `main` and calls
//! [`init`] there; the tasks register themselves.

use std::sync::OnceLock;

use procession::{Executor, PoolError, ProcessPool, Registry, TaskError, worker};

/// To be called first thing in `main`: the program is its own worker.
pub fn init() {
    worker::serve_if_asked(Registry::collected());
}

/// How many words each text has.
pub fn count_words(texts: &[String]) -> Result<Vec<usize>, TaskError> {
    let pool = pool().map_err(TaskError::PoolBroken)?;
    pool.map(texts.iter().cloned().map(count)).collect()
}

#[procession::task]
fn count(text: String) -> usize {
    text.split_whitespace().count()
}

fn pool() -> Result<&'static ProcessPool, PoolError> {
    static POOL: OnceLock<Result<ProcessPool, PoolError>> = OnceLock::new();
    POOL.get_or_init(|| ProcessPool::builder().workers(2).build()).as_ref().map_err(Clone::clone)
}

#[cfg(test)]
mod tests {
    #[procession::test]
    fn words_are_counted_in_the_order_of_the_texts() {
        let texts = ["a b c", "", "d"].map(str::to_owned);
        assert_eq!(super::count_words(&texts), Ok(vec![3, 0, 1]));
    }
}
