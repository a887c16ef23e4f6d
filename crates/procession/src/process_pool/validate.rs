//! Checks the settings of a [`Builder`](super::Builder).

use std::ffi::OsString;
use std::time::Duration;

use crate::error::PoolError;

/// Refuses a number of zero.
pub(super) fn not_zero<N: PartialEq + From<u8>>(
    what: &str,
    number: Option<N>,
) -> Result<(), PoolError> {
    if number == Some(N::from(0)) {
        return Err(PoolError::Setting(format!("{what} must be at least 1")));
    }
    Ok(())
}

/// Refuses an age of zero, at which a worker could run no task.
pub(super) fn age(age: Option<Duration>) -> Result<(), PoolError> {
    match age {
        Some(Duration::ZERO) => Err(PoolError::Setting("above_age must be above zero".to_owned())),
        _ => Ok(()),
    }
}

/// Refuses names and values that an environment cannot hold unchanged.
pub(super) fn env(variables: &[(OsString, OsString)]) -> Result<(), PoolError> {
    use std::os::unix::ffi::OsStrExt;
    for (name, value) in variables {
        let reason = match (name.as_bytes(), value.as_bytes()) {
            ([], _) => "is empty",
            (name, _) if name.contains(&b'=') => "contains '='",
            (name, _) if name.contains(&0) => "contains a zero byte",
            (_, value) if value.contains(&0) => {
                let text = format!("worker_env: the value of {name:?} contains a zero byte");
                return Err(PoolError::Setting(text));
            }
            _ => continue,
        };
        return Err(PoolError::Setting(format!("worker_env: the name {name:?} {reason}")));
    }
    Ok(())
}

/// Upper bounds that no system reaches; they limit what is allocated per worker and per slot.
const MOST_WORKERS: usize = 1 << 15;
const MOST_IN_A_WORKER: usize = 1 << 15;

/// Checks the number of spares.
pub(super) fn spares(spares: usize) -> Result<usize, PoolError> {
    match spares <= MOST_WORKERS {
        true => Ok(spares),
        false => {
            Err(PoolError::Setting(format!("spares must be at most {MOST_WORKERS}, not {spares}")))
        }
    }
}

/// Number of slots of each worker: `concurrency` divided as evenly as possible.
pub(super) fn slots(workers: usize, concurrency: Option<usize>) -> Result<Vec<usize>, PoolError> {
    let concurrency = concurrency.unwrap_or(workers);
    if workers == 0 || concurrency == 0 {
        let what = if workers == 0 { "workers" } else { "concurrency" };
        return Err(PoolError::Setting(format!("{what} must be at least 1")));
    }
    let workers = workers.min(concurrency);
    let too_many = |what: &str, number: usize, most: usize| {
        PoolError::Setting(format!("{what} must be at most {most}, not {number}"))
    };
    if workers > MOST_WORKERS {
        return Err(too_many("workers", workers, MOST_WORKERS));
    }
    if concurrency.div_ceil(workers) > MOST_IN_A_WORKER {
        let most = workers * MOST_IN_A_WORKER;
        let what = format!("concurrency with {workers} workers");
        return Err(too_many(&what, concurrency, most));
    }
    let (each, more) = (concurrency / workers, concurrency % workers);
    Ok((0..workers).map(|worker| each + usize::from(worker < more)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrency_is_spread_evenly_and_never_exceeded() {
        assert_eq!(slots(2, None), Ok(vec![1, 1]));
        assert_eq!(slots(2, Some(3)), Ok(vec![2, 1]));
        assert_eq!(slots(2, Some(30)), Ok(vec![15, 15]));
        assert_eq!(slots(4, Some(1)), Ok(vec![1]));
        assert!(matches!(slots(0, None), Err(PoolError::Setting(_))));
        assert!(matches!(slots(1, Some(0)), Err(PoolError::Setting(_))));
    }

    #[test]
    fn numbers_beyond_any_system_are_refused_with_the_bound() {
        for (workers, concurrency) in [
            (usize::MAX, None),
            (2, Some(usize::MAX)),
            (usize::MAX, Some(usize::MAX)),
            (MOST_WORKERS + 1, None),
            (1, Some(MOST_IN_A_WORKER + 1)),
        ] {
            let Err(PoolError::Setting(reason)) = slots(workers, concurrency) else {
                panic!("{workers} and {concurrency:?} are taken");
            };
            assert!(reason.contains("32768") || reason.contains("65536"), "{reason}");
        }
        assert_eq!(spares(MOST_WORKERS), Ok(MOST_WORKERS));
        let Err(PoolError::Setting(reason)) = spares(usize::MAX) else { panic!("taken") };
        assert!(reason.contains("spares must be at most 32768"), "{reason}");
        assert_eq!(slots(MOST_WORKERS, None).map(|slots| slots.len()), Ok(MOST_WORKERS));
    }
}
