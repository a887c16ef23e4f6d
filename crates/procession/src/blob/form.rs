//! What a blob is in an encoding: bytes, or an object that stands for them.

use std::cell::Cell;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Blob;
use super::enclosed::{Encoded, disclose, enclose};

thread_local! {
    /// `Blob::deserialize` is calling `deserialize_any`.
    static IS_ASKING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a blob has called `deserialize_any`. A blob decodes to what it was, unlike a type that
/// inspects a value to find out what it is, so the value need not be verified.
pub(crate) fn is_asking() -> bool {
    IS_ASKING.replace(false)
}

/// The key of the object that stands for a blob that was set aside.
const MENTION: &str = "$blob";
/// The key of the object that holds a blob in a text.
const BASE64: &str = "$base64";

/// Whether a key is that of an object which stands for a blob.
#[inline]
pub(crate) fn is_mark(key: &str) -> bool {
    key.starts_with("$b") && (key == MENTION || key == BASE64)
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encoded = enclose(self);
        if let Encoded::Bytes = encoded {
            return serializer.serialize_bytes(self);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        match encoded {
            Encoded::Index(index) => map.serialize_entry(MENTION, &index)?,
            _ => map.serialize_entry(BASE64, &Base64(self))?,
        }
        map.end()
    }
}

/// The bytes of a blob as text: a string that needs no escapes.
struct Base64<'b>(&'b [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

/// Reads what [`Base64`] has written.
struct FromBase64;

impl<'de> DeserializeSeed<'de> for FromBase64 {
    type Value = Blob;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Blob, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FromBase64 {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes as base64")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Blob, E> {
        STANDARD.decode(text).map(Blob::from).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IS_ASKING.set(true);
        let result = deserializer.deserialize_any(BlobVisitor);
        IS_ASKING.set(false);
        result
    }
}

struct BlobVisitor;

impl<'de> Visitor<'de> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
        Ok(bytes.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Blob, A::Error> {
        let mut bytes = Vec::with_capacity(seq.size_hint().unwrap_or_default().min(4096));
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Blob, A::Error> {
        // Owned, since a buffered map, such as a `serde_json::Value`, lends no key.
        let key = map.next_key::<String>()?;
        match key.as_deref() {
            Some(BASE64) => map.next_value_seed(FromBase64),
            Some(MENTION) => {
                let index = map.next_value()?;
                disclose(index).ok_or_else(|| A::Error::custom("a blob that was not enclosed"))
            }
            _ => Err(A::Error::custom("an object that stands for no blob")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_of_tasks_a_blob_is_a_sequence_of_bytes() {
        let json = serde_json::to_string(&Blob::from(vec![1; 300])).expect("JSON");
        assert!(json.starts_with("[1,1,"));
        assert_eq!(serde_json::from_str::<Blob>(&json).expect("a blob"), vec![1; 300].into());
        for wrong in [r#"{"$blob":0}"#, r#"{"blob":0}"#, "{}", "[256]", "7"] {
            assert!(serde_json::from_str::<Blob>(wrong).is_err(), "{wrong}");
        }
    }
}
