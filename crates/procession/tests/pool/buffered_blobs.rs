//! Blobs in places where serde reads a value into a buffer first.

use std::collections::BTreeMap;

use libtest_mimic::Trial;
use procession::{
    Blob, Context, Encoding, Executor, Failure, ProcessPool, Registry, Task, TaskError,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::blobs::{SHORT_IN_BINARY, SHORT_IN_JSON, bytes};
use crate::tasks::pool;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        blobs_of_all_sizes_arrive_in_types_that_are_buffered_while_they_are_read,
        in_json_a_blob_is_never_taken_for_a_list,
        a_blob_is_never_taken_for_what_stands_for_it_nor_that_for_a_blob,
        what_looks_like_a_blob_arrives_equal_where_no_blob_is_asked_for,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    let registry = registry.with::<Buffered>().with::<BufferedBinary>().with::<Untagged>();
    registry.with::<Lookalikes>().with::<LookalikesBinary>()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Parts {
    either: Either,
    #[serde(serialize_with = "to_value", deserialize_with = "from_value")]
    by_value: Blob,
    tagged: Tagged,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Either {
    X { blob: Blob, x: u32 },
    Y { blob: Blob, y: u32 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Only { blob: Blob },
}

fn to_value<S: serde::Serializer>(blob: &Blob, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::to_value(blob).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

fn from_value<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    serde_json::from_value(value).map_err(serde::de::Error::custom)
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Buffered(Vec<Parts>);

impl Task for Buffered {
    const NAME: &'static str = "buffered blobs";
    type Output = Vec<Parts>;

    fn run(self, _: &Context) -> Result<Vec<Parts>, Failure> {
        Ok(self.0)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct BufferedBinary(Vec<Parts>);

impl Task for BufferedBinary {
    const NAME: &'static str = "buffered blobs in binary";
    const ENCODING: Encoding = Encoding::Binary;
    type Output = Vec<Parts>;

    fn run(self, _: &Context) -> Result<Vec<Parts>, Failure> {
        Ok(self.0)
    }
}

fn blobs_of_all_sizes_arrive_in_types_that_are_buffered_while_they_are_read() {
    let pool = pool(1);
    for len in
        [0, 257, SHORT_IN_JSON, SHORT_IN_JSON + 1, SHORT_IN_BINARY, SHORT_IN_BINARY + 1, 70_000]
    {
        let blob = || Blob::from(vec![7; len]);
        let parts =
            |either| Parts { either, by_value: blob(), tagged: Tagged::Only { blob: blob() } };
        let all =
            vec![parts(Either::X { blob: blob(), x: 1 }), parts(Either::Y { blob: blob(), y: 2 })];
        assert_eq!(pool.submit(Buffered(all.clone())).result(), Ok(all.clone()), "JSON, {len}");
        assert_eq!(pool.submit(BufferedBinary(all.clone())).result(), Ok(all), "binary, {len}");
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum ListOrBlob {
    List(Vec<u8>),
    Blob(Blob),
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Untagged(ListOrBlob);

impl Task for Untagged {
    const NAME: &'static str = "untagged list or blob";
    type Output = ListOrBlob;

    fn run(self, _: &Context) -> Result<ListOrBlob, Failure> {
        Ok(self.0)
    }
}

fn in_json_a_blob_is_never_taken_for_a_list() {
    let pool = pool(1);
    for len in [0, 3, SHORT_IN_JSON, SHORT_IN_JSON + 1] {
        for either in [ListOrBlob::Blob(bytes(len)), ListOrBlob::List(bytes(len).into_vec())] {
            assert_eq!(pool.submit(Untagged(either.clone())).result(), Ok(either));
        }
    }
}

/// Types that may take a blob for a map, or a map for a blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Lookalike {
    Maps(MapOrBlob),
    AnyFirst(AnyOrBlob),
    BlobFirst(BlobOrAny),
    BlobOrVariant(BlobOrVariant),
    Blob(Blob),
    Any(Value),
    Map(BTreeMap<String, String>),
    Variant(Variant),
    /// JSON within a text.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    Text(Blob),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum MapOrBlob {
    Texts(BTreeMap<String, String>),
    Numbers(BTreeMap<String, u64>),
    Bytes(Blob),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum AnyOrBlob {
    Any(Value),
    Bytes(Blob),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum BlobOrAny {
    Bytes(Blob),
    Any(Value),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum BlobOrVariant {
    Bytes(Blob),
    Variant(Variant),
    Struct(Struct),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Variant {
    #[serde(rename = "$base64")]
    Base64(String),
    #[serde(rename = "$blob")]
    Blob(u64),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Struct {
    #[serde(rename = "$base64")]
    base64: String,
}

fn to_text<S: serde::Serializer>(blob: &Blob, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::to_string(blob).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

fn from_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
    let text = String::deserialize(deserializer)?;
    serde_json::from_str(&text).map_err(serde::de::Error::custom)
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lookalikes(Vec<Lookalike>);

impl Task for Lookalikes {
    const NAME: &'static str = "what looks like a blob";
    type Output = Vec<Lookalike>;

    fn run(self, _: &Context) -> Result<Vec<Lookalike>, Failure> {
        Ok(self.0)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LookalikesBinary(Vec<Lookalike>);

impl Task for LookalikesBinary {
    const NAME: &'static str = "what looks like a blob, in binary";
    const ENCODING: Encoding = Encoding::Binary;
    type Output = Vec<Lookalike>;

    fn run(self, _: &Context) -> Result<Vec<Lookalike>, Failure> {
        Ok(self.0)
    }
}

/// The values as they come back in both encodings.
fn sent(pool: &ProcessPool, values: &[Lookalike]) -> [Result<Vec<Lookalike>, TaskError>; 2] {
    [
        pool.submit(Lookalikes(values.to_vec())).result(),
        pool.submit(LookalikesBinary(values.to_vec())).result(),
    ]
}

/// What stands for blobs, as values that are none.
fn marks() -> [Value; 4] {
    [
        json!({"$base64": "AAAA"}),
        json!({"$blob": 0}),
        json!({"$blob": 1}),
        json!([{"$blob": 7}, {"$base64": "no base64"}, {"$base64": "AAAA", "$blob": 0}]),
    ]
}

fn a_blob_is_never_taken_for_what_stands_for_it_nor_that_for_a_blob() {
    let pool = pool(1);
    let mut values = Vec::new();
    for len in [0, 3, 13_000, 50_000] {
        values.extend([
            Lookalike::Maps(MapOrBlob::Bytes(bytes(len))),
            Lookalike::AnyFirst(AnyOrBlob::Bytes(bytes(len))),
            Lookalike::BlobFirst(BlobOrAny::Bytes(bytes(len))),
            Lookalike::BlobOrVariant(BlobOrVariant::Bytes(bytes(len))),
            Lookalike::Text(bytes(len)),
        ]);
    }
    for mark in marks() {
        values.extend([
            Lookalike::AnyFirst(AnyOrBlob::Any(mark.clone())),
            Lookalike::BlobFirst(BlobOrAny::Any(mark)),
        ]);
    }
    let text = "AAAA".to_owned();
    values.extend([
        Lookalike::Maps(MapOrBlob::Texts([("$base64".to_owned(), text.clone())].into())),
        Lookalike::Maps(MapOrBlob::Numbers([("$blob".to_owned(), 0)].into())),
        Lookalike::BlobOrVariant(BlobOrVariant::Variant(Variant::Base64(text.clone()))),
        Lookalike::BlobOrVariant(BlobOrVariant::Variant(Variant::Blob(0))),
        Lookalike::BlobOrVariant(BlobOrVariant::Struct(Struct { base64: text })),
    ]);
    // Alone, and with another blob, for which a map may be taken.
    let others = [3, 13_000, 50_000].map(|len| Lookalike::Blob(bytes(len)));
    let with = |value: &Lookalike| others.clone().map(|other| vec![other, value.clone()]);
    let all = values.iter().flat_map(|value| with(value).into_iter().chain([vec![value.clone()]]));
    for values in all {
        for (result, encoding) in sent(&pool, &values).into_iter().zip(["JSON", "binary"]) {
            let is_right = match &result {
                Ok(back) => *back == values,
                Err(TaskError::Undecodable { .. } | TaskError::Unencodable { .. }) => true,
                Err(_) => false,
            };
            assert!(is_right, "{values:?} in {encoding}: {result:?}");
        }
    }
}

fn what_looks_like_a_blob_arrives_equal_where_no_blob_is_asked_for() {
    let pool = pool(1);
    let mut values: Vec<_> = marks().into_iter().map(Lookalike::Any).collect();
    values.extend([
        Lookalike::AnyFirst(AnyOrBlob::Any(json!({"$base64": "AAAA"}))),
        Lookalike::Map([("$blob".to_owned(), "AAAA".to_owned())].into()),
        Lookalike::Map([("$base64".to_owned(), "AAAA".to_owned())].into()),
        Lookalike::Variant(Variant::Base64("AAAA".to_owned())),
        Lookalike::Variant(Variant::Blob(0)),
    ]);
    for value in values.clone() {
        for result in sent(&pool, std::slice::from_ref(&value)) {
            assert_eq!(result, Ok(vec![value.clone()]));
        }
    }
    for len in [3, 13_000, 50_000] {
        values.extend([Lookalike::Blob(bytes(len)), Lookalike::Text(bytes(len))]);
        values.push(Lookalike::BlobFirst(BlobOrAny::Bytes(bytes(len))));
    }
    for result in sent(&pool, &values) {
        assert_eq!(result, Ok(values.clone()));
    }
}
