//! [`SharedValue`]: a value that many tasks use, encoded once and decoded once per worker process.
//!
//! | process | has | for how long |
//! |---|---|---|
//! | that which made it | the value, and its encoding once a task with it was sent | as long as there are handles; the encoding also while a task with it is not complete |
//! | that which received it | the same, as another value | as long as there are handles |
//! | worker | what it decoded first, for all later tasks with the same id | until that encoding is gone; the [`MOST`] values that were used last |
//!
//! `released.rs` tells the workers which encodings are gone.
//!
//! Only worker processes keep what they receive: the coordinator decodes a value that comes back anew, and gives
//! it a new id, since a worker chooses the id that it sends. With the id of another value it would take the place
//! of that one in a worker to which the coordinator sends both.

mod released;

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use self::released::Release;
pub(crate) use self::released::{SharedContent, ToldReleases};
use crate::blob::Blob;
use crate::codec::{self, BinaryEncoding};
use crate::panics;
use crate::worker;
use procession_os::threads::ThreadSpec;

/// A value that many tasks use, such as a table or a model.
///
/// A task that holds it in a field or an argument can be sent as often as needed: the value is encoded once,
/// its bytes are copied once for all workers of all pools, and each worker process decodes it once. On
/// threads nothing is encoded at all. A new worker, after a crash, decodes it again. `clone` copies a
/// handle.
///
/// The coordinator gives the bytes back when the last handle is dropped and each task with it is complete. The
/// workers drop the value then, an idle one about a second later. Besides, a worker keeps only the 8 values that its
/// tasks used last.
///
/// The value must not change, as by a `Mutex` or an atomic in it: each process has its own.
///
/// The value is encoded in the [binary encoding](crate::Encoding::Binary), whatever the encoding of the task is.
///
/// ```
/// use std::collections::HashMap;
///
/// use procession::{Executor, Sequential, SharedValue};
/// # #[cfg(feature = "macros")] {
///
/// #[procession::task]
/// fn price(list: SharedValue<HashMap<String, u32>>, name: String) -> Option<u32> {
///     list.get(&name).copied()
/// }
///
/// let list = SharedValue::new(HashMap::from([("pear".to_owned(), 3)]));
/// let names = ["pear", "plum"].map(String::from);
/// let executor = Sequential::new();
/// let prices = executor.map(names.map(|name| price(list.clone(), name)));
/// assert_eq!(prices.collect::<Result<Vec<_>, _>>()?, [Some(3), None]);
/// # }
/// # Ok::<(), procession::TaskError>(())
/// ```
pub struct SharedValue<T>(Arc<SharedCore<T>>);

struct SharedCore<T> {
    id: Uuid,
    value: T,
    /// The encoded value, or why it cannot be encoded.
    encoded: OnceLock<Result<Blob, String>>,
    /// Of a value that was received, once it was sent on: its encoding is that of another process.
    release: OnceLock<Release>,
    is_received: bool,
}

impl<T> SharedValue<T> {
    /// A value to be shared.
    ///
    /// ```
    /// use procession::SharedValue;
    ///
    /// let words = SharedValue::new(vec!["an".to_owned(), "example".to_owned()]);
    /// assert_eq!(words.len(), 2);
    /// ```
    pub fn new(value: T) -> Self {
        let (id, encoded, release) = (Uuid::new_v4(), OnceLock::new(), OnceLock::new());
        Self(Arc::new(SharedCore { id, value, encoded, release, is_received: false }))
    }
}

/// The form in which it is sent.
#[derive(Serialize, Deserialize)]
struct SentValue {
    /// The upper and the lower half of the id.
    id: (u64, u64),
    bytes: Blob,
}

impl<T: Serialize + DeserializeOwned> Serialize for SharedValue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encode = || {
            let mut bytes = Vec::new();
            match codec::encode_without_blobs::<BinaryEncoding, T>(&self.0.value, &mut bytes) {
                Ok(()) => Ok(Blob::shared(SharedContent::new(self.0.id, bytes))),
                Err(refusal) => Err(format!("{}: {}", refusal.field(), refusal.into_reason())),
            }
        };
        if self.0.is_received {
            self.0.release.get_or_init(|| Release(self.0.id));
        }
        match self.0.encoded.get_or_init(encode) {
            Ok(bytes) => SentValue { id: self.0.id.as_u64_pair(), bytes: bytes.clone() }
                .serialize(serializer),
            Err(reason) => Err(S::Error::custom(reason)),
        }
    }
}

impl<'de, T> Deserialize<'de> for SharedValue<T>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let SentValue { id: (high, low), bytes } = SentValue::deserialize(deserializer)?;
        let id = Uuid::from_u64_pair(high, low);
        let decode = |id| {
            let value = codec::decode::<BinaryEncoding, T>(&bytes, Vec::new())
                .map_err(|refusal| refusal.to_string())?;
            let encoded = OnceLock::from(Ok(bytes.clone()));
            Ok(Arc::new(SharedCore {
                id,
                value,
                encoded,
                release: OnceLock::new(),
                is_received: true,
            }))
        };
        let core = match worker::is_serving() {
            true => kept_or(id, || decode(id)),
            false => decode(Uuid::new_v4()),
        };
        core.map(Self).map_err(|reason: String| D::Error::custom(reason))
    }
}

/// The most values that a worker process keeps.
const MOST: usize = 8;

/// The place of a value that a worker process keeps. Its lock is held while the value is decoded, so that
/// several threads decode it once.
type KeptPlace = Arc<Mutex<Option<Arc<dyn Any + Send + Sync>>>>;

/// The places by their ids, those used last at the end.
static KEPT: Mutex<Vec<(Uuid, KeptPlace)>> = Mutex::new(Vec::new());

/// The value with this id that this process keeps, or else the decoded one, which is kept from now on.
fn kept_or<C: Send + Sync + 'static>(
    id: Uuid,
    decode: impl FnOnce() -> Result<Arc<C>, String>,
) -> Result<Arc<C>, String> {
    let (place, dropped) = place_of(id);
    // The program's code drops its values without the lock, and its panics are not this task's.
    dropped.into_iter().for_each(panics::discard);
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = place.clone().and_then(|kept| kept.downcast().ok());
    match kept {
        Some(core) => Ok(core),
        None => {
            let core = decode().inspect_err(|_| forget(id))?;
            *place = Some(Arc::clone(&core) as _);
            Ok(core)
        }
    }
}

/// Drops the values with these ids, or all, where a record of the coordinator says so. The program's code may take
/// long for that, and a worker that does not begin its next task would be taken for a stopped one: so a thread
/// does it, if there may be one.
pub(crate) fn drop_released(record: &[u8]) {
    let ids: Vec<_> = released::ids(record).collect();
    let is_released = |id: &Uuid| ids.is_empty() || ids.contains(id);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let dropped: Vec<_> = kept.extract_if(.., |(id, _)| is_released(id)).collect();
    drop(kept);
    if dropped.is_empty() {
        return;
    }
    // A thread that is not started drops its closure, and with it what is left.
    let dropped = Leftover(dropped);
    let thread = ThreadSpec::new("drop values").start(move || drop(dropped));
    let mut dropping = DROPPING.lock().unwrap_or_else(PoisonError::into_inner);
    dropping.retain(|thread| !thread.is_finished());
    dropping.extend(thread);
}

/// The threads that drop values.
static DROPPING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Waits until the values are dropped that the coordinator has released: the end of a process would meet the program's
/// code in the middle. The coordinator ends a worker for which that takes too long.
pub(crate) fn await_drops() {
    let dropping = std::mem::take(&mut *DROPPING.lock().unwrap_or_else(PoisonError::into_inner));
    for thread in dropping {
        let _ = thread.join();
    }
}

/// Values that are dropped one by one. A panic of one is none of the others.
struct Leftover(Vec<(Uuid, KeptPlace)>);

impl Drop for Leftover {
    fn drop(&mut self) {
        self.0.drain(..).for_each(panics::discard);
    }
}

/// Gives the place of a value up that could not be decoded.
fn forget(id: Uuid) {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| *other != id);
}

/// The place of a value, and those that are given up for it.
fn place_of(id: Uuid) -> (KeptPlace, Vec<(Uuid, KeptPlace)>) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let found = kept.iter().position(|(other, _)| *other == id).map(|index| kept.remove(index).1);
    let place = found.unwrap_or_default();
    kept.push((id, Arc::clone(&place)));
    let surplus = kept.len().saturating_sub(MOST);
    (place, kept.drain(..surplus).collect())
}

impl<T> Deref for SharedValue<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Clone for SharedValue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> From<T> for SharedValue<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: fmt::Debug> fmt::Debug for SharedValue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

/// Equal values, whether they are the same or not.
impl<T: PartialEq> PartialEq for SharedValue<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.value == other.0.value
    }
}

impl<T: Eq> Eq for SharedValue<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_keeps_the_values_that_were_used_last() {
        let ids: Vec<_> = (0..=MOST).map(|_| Uuid::new_v4()).collect();
        let get = |id, fresh: usize| kept_or(id, || Ok(Arc::new(fresh))).map(|value| *value);
        assert_eq!(
            kept_or(ids[0], || Err::<Arc<usize>, _>("broken".to_owned())),
            Err("broken".into())
        );
        for (fresh, id) in ids[..MOST].iter().enumerate() {
            assert_eq!(get(*id, fresh), Ok(fresh));
        }
        assert_eq!(get(ids[0], 100), Ok(0), "it was kept");
        assert_eq!(get(ids[MOST], 101), Ok(101));
        assert_eq!(get(ids[0], 102), Ok(0), "it was used last but one");
        assert_eq!(get(ids[1], 103), Ok(103), "it was given up");
        // The same id with another type is another value.
        assert_eq!(kept_or(ids[0], || Ok(Arc::new("text"))).as_deref(), Ok(&"text"));
    }
}
