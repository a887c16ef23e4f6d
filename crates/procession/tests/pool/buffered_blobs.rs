//! Blobs in places where serde reads a value into a buffer first.

use libtest_mimic::Trial;
use procession::{Blob, Context, Encoding, Executor, Failure, Registry, Task};
use serde::{Deserialize, Serialize};

use crate::blobs::{SHORT_IN_BINARY, SHORT_IN_JSON, bytes};
use crate::tasks::pool;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        blobs_of_all_sizes_arrive_in_types_that_are_buffered_while_they_are_read,
        in_json_a_blob_is_never_taken_for_a_list,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Buffered>().with::<BufferedBinary>().with::<Untagged>()
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
