//! Values that are nested deeply. Each level takes stack where it is read, up to some ten kilobytes in a build without
//! optimization, and a thread that overflows its stack ends the program.

use std::panic::resume_unwind;

use procession_os::threads::ThreadSpec;

use super::Refusal;
use crate::blob::Blob;

/// A value with at most this number of levels is read in the thread that asks for it, which may have only 2 MiB of
/// stack. Values with more levels are rare.
pub(super) const SHALLOW: u32 = 32;

/// The stack of the thread, in bytes: enough for 640 levels. Values with more levels are refused. Only the pages that
/// are used take memory.
const LARGE: usize = 64 << 20;

/// The result of reading a value.
pub(crate) struct Parsed<T> {
    pub(super) value: Result<T, String>,
    /// Whether the value has to be [verified](super::verify).
    pub(super) is_doubtful: bool,
    /// Whether the value has more levels than were allowed. If so, `value` is an error or is wrong.
    pub(super) is_too_deep: bool,
}

/// Why no value was decoded.
pub(super) enum NotDecoded {
    /// The value has too many levels for this stack: try again with more stack.
    TooDeep,
    Because(Refusal),
}

impl From<String> for NotDecoded {
    fn from(reason: String) -> Self {
        Self::Because(Refusal::new(reason))
    }
}

impl From<Refusal> for NotDecoded {
    fn from(refusal: Refusal) -> Self {
        Self::Because(refusal)
    }
}

/// Calls `decode` with the depth up to which it may decode. If the value is nested more deeply, calls it again in a
/// thread with a large stack.
pub(super) fn with_enough_stack(
    blobs: Vec<Blob>,
    decode: &mut (dyn FnMut(Vec<Blob>, u32) -> Result<(), NotDecoded> + Send),
) -> Result<(), Refusal> {
    let mut again = blobs.clone();
    let refusal = |error| match error {
        NotDecoded::TooDeep => Refusal::new("it is nested too deeply"),
        NotDecoded::Because(refusal) => refusal,
    };
    let decoded = match decode(blobs, SHALLOW) {
        Err(NotDecoded::TooDeep) => {
            let mut decoded = None;
            on_large_stack(&mut || decoded = Some(decode(std::mem::take(&mut again), u32::MAX)))
                .map_err(Refusal::new)?;
            decoded.expect("the thread has ended without a panic")
        }
        decoded => decoded,
    };
    decoded.map_err(refusal)
}

/// Runs `body` in a thread of its own, with a large stack.
#[cold]
fn on_large_stack(body: &mut (dyn FnMut() + Send)) -> Result<(), String> {
    let thread = ThreadSpec::new("deep-value").with_stack(Some(LARGE));
    match thread.run(body) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(panic)) => resume_unwind(panic),
        Err(error) => Err(format!(
            "it is nested more than {SHALLOW} levels deep, and there is no thread with {} MiB of stack for it: {error}",
            LARGE >> 20
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use crate::codec::typed_encoding::{encode_in, read_in};
    use crate::codec::{Encoding, decode_in};

    /// Takes much stack for each level where it is read.
    #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
    struct Fat {
        numbers: [[u64; 16]; 16],
        next: Option<Box<Fat>>,
    }

    /// The same, and serde keeps it in a buffer before it is read.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[expect(clippy::large_enum_variant, reason = "it is to take much stack")]
    #[serde(tag = "is")]
    enum Tagged {
        Node { numbers: [[u64; 16]; 16], next: Box<Tagged> },
        End,
    }

    fn fat(levels: usize) -> Fat {
        let around = |inner| Fat { numbers: [[7; 16]; 16], next: Some(Box::new(inner)) };
        (0..levels).fold(Fat::default(), |inner, _| around(inner))
    }

    fn tagged(levels: usize) -> Tagged {
        let around = |inner| Tagged::Node { numbers: [[7; 16]; 16], next: Box::new(inner) };
        (0..levels).fold(Tagged::End, |inner, _| around(inner))
    }

    #[test]
    fn what_is_nested_deeply_overflows_no_stack() {
        for (encoding, levels) in [(Encoding::Json, 60), (Encoding::Binary, 250)] {
            let (value, mut bytes) = (fat(levels), Vec::new());
            encode_in(encoding, &value, &mut bytes).expect("encoded");
            let decoded: Option<Fat> = decode_in(encoding, &bytes, Vec::new()).ok();
            assert!(decoded.as_ref() == Some(&value), "{encoding:?}");
            assert!(read_in::<Fat>(encoding, &bytes).ok() == Some(value), "{encoding:?}");
            let (value, mut bytes) = (tagged(levels / 3), Vec::new());
            encode_in(encoding, &value, &mut bytes).expect("encoded");
            let read: Option<Tagged> = decode_in(encoding, &bytes, Vec::new()).ok();
            assert!(read == Some(value), "{encoding:?}");
        }
    }

    /// A list that is nothing but `Some` and newtype structs.
    #[derive(Debug, Serialize, Deserialize)]
    struct Wrapped(Option<Box<Wrapped>>);

    impl Drop for Wrapped {
        fn drop(&mut self) {
            let mut next = self.0.take();
            while let Some(mut inner) = next {
                next = inner.0.take();
            }
        }
    }

    /// What is read inside of them is no text of its own, so nothing of a text ends it.
    #[test]
    fn values_around_each_other_without_end_are_refused() {
        for (encoding, number) in [(Encoding::Json, &b"7"[..]), (Encoding::Binary, &[4])] {
            for refused in [
                decode_in::<Wrapped>(encoding, number, Vec::new()).err(),
                read_in::<Wrapped>(encoding, number).err(),
                decode_in::<Vec<Wrapped>>(encoding, number, Vec::new()).err(),
            ] {
                assert!(refused.is_some(), "{encoding:?}");
            }
        }
    }

    #[test]
    fn a_million_values_around_each_other_are_refused() {
        let value = (0..1_000_000).fold(Wrapped(None), |inner, _| Wrapped(Some(Box::new(inner))));
        for encoding in [Encoding::Json, Encoding::Binary] {
            let refused = encode_in(encoding, &value, &mut Vec::new());
            assert!(refused.is_err_and(|refusal| refusal.to_string().contains("512")));
        }
    }
}
