//! Blobs of plain values: numbers, and structs of them.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, DerefMut};

use bytemuck::{NoUninit, Pod};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::enclosed::is_long;
use super::{Blob, Owner};
use crate::long_buffers;
use crate::transport::MOST_BYTES;
use procession_os::memory::copied;

impl Blob {
    /// A copy, in memory that is used again after it was sent.
    fn copy_to_send(bytes: &[u8]) -> Self {
        let mut kept = long_buffers::take(bytes.len());
        let copy = if kept.capacity() < bytes.len() {
            copied(bytes)
        } else {
            kept.extend_from_slice(bytes);
            kept
        };
        Self::own(Owner::Copied(copy.into()))
    }

    /// A blob of plain values (numbers, and structs of them that are [`NoUninit`]), which are not copied
    /// before they are sent. They have the byte order of this machine.
    ///
    /// ```
    /// use procession::Blob;
    ///
    /// let blob = Blob::from_values(vec![0.5_f32, -1.0]);
    /// assert_eq!(blob.len(), 8);
    /// assert_eq!(*blob.values::<f32>()?, [0.5, -1.0]);
    /// # Ok::<(), procession::ValuesError>(())
    /// ```
    pub fn from_values<T: NoUninit + Send + Sync>(values: Vec<T>) -> Self {
        const { assert!(size_of::<T>() > 0, "values without a size have no bytes") };
        Self::own(Owner::Values(Box::new(PlainValues(values))))
    }

    /// The bytes as plain values. They are copied only if they lie at an address that does not suit `T`:
    /// a task gets long blobs at the begin of a page, and the usual allocators put long outputs at addresses
    /// that suit all numbers.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// #[procession::task]
    /// fn mean(samples: Blob) -> Result<f32, Failure> {
    ///     let samples = samples.values::<f32>()?;
    ///     Ok(samples.iter().sum::<f32>() / samples.len() as f32)
    /// }
    /// let task = mean(Blob::from_values(vec![1.0_f32, 2.0]));
    /// assert_eq!(Sequential::new().submit(task).result(), Ok(1.5));
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ValuesError`] if the number of bytes is not a multiple of the size of `T`.
    pub fn values<T: Pod>(&self) -> Result<Cow<'_, [T]>, ValuesError> {
        let size = size_of::<T>();
        let error = ValuesError { bytes: self.len(), size, name: std::any::type_name::<T>() };
        if size == 0 || !self.len().is_multiple_of(size) {
            return Err(error);
        }
        if let Ok(values) = bytemuck::try_cast_slice(self) {
            return Ok(Cow::Borrowed(values));
        }
        Ok(Cow::Owned(bytemuck::pod_collect_to_vec(self)))
    }
}

/// Why the bytes of a [`Blob`] are not values of a type.
///
/// ```
/// use procession::Blob;
///
/// let error = Blob::from(vec![0; 5]).values::<u32>().expect_err("five bytes");
/// assert!(error.to_string().contains("5 bytes"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a blob of {bytes} bytes does not consist of whole values of {name}, of {size} bytes each")]
pub struct ValuesError {
    bytes: usize,
    size: usize,
    name: &'static str,
}

struct PlainValues<T>(Vec<T>);

impl<T: NoUninit> AsRef<[u8]> for PlainValues<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// A `Vec` of plain values, such as `f32`, for a field of a task or of its output. It is sent as a
/// [`Blob`] is: copied into memory that both processes can read, not encoded value by value. The receiver
/// copies it once more, into a `Vec`; a [`Blob`] and [`Blob::values`] spare that.
///
/// Outside of tasks and outputs it is serialized as bytes, in the byte order of this machine.
///
/// ```
/// use procession::{PodVec, Executor, Sequential};
/// # #[cfg(feature = "macros")] {
///
/// #[procession::task]
/// fn double(samples: PodVec<f32>) -> PodVec<f32> {
///     samples.iter().map(|sample| 2.0 * sample).collect()
/// }
///
/// let doubled = Sequential::new().submit(double(PodVec(vec![0.5, 1.0]))).result()?;
/// assert_eq!(*doubled, [1.0, 2.0]);
/// # }
/// # Ok::<(), procession::TaskError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct PodVec<T>(pub Vec<T>);

impl<T: Pod> Serialize for PodVec<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if size_of::<T>() == 0 {
            return Err(S::Error::custom("values without a size have no bytes"));
        }
        let bytes: &[u8] = bytemuck::cast_slice(&self.0);
        // The worker is not known yet, whose segments spare fresh memory. In a `Vec` it is not fresh
        // either, in most programs. Sealed memory takes a descriptor.
        let is_alone = bytes.len() as u64 > MOST_BYTES && is_long(bytes.len());
        let blob = if is_alone { Blob::sealed_copy(bytes) } else { Blob::copy_to_send(bytes) };
        blob.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for PodVec<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let blob = Blob::deserialize(deserializer)?;
        let values = blob.values().map_err(D::Error::custom)?;
        Ok(Self(match values {
            Cow::Borrowed(values) => copied(values),
            Cow::Owned(values) => values,
        }))
    }
}

impl<T> Deref for PodVec<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> DerefMut for PodVec<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T> From<Vec<T>> for PodVec<T> {
    fn from(values: Vec<T>) -> Self {
        Self(values)
    }
}

impl<T> FromIterator<T> for PodVec<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<T> IntoIterator for PodVec<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<T: fmt::Debug> fmt::Debug for PodVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
