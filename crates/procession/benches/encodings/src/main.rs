//! Which values of the zoo other encodings hold: the second table of `docs/encodings.md`.
//! `cargo run` writes the table anew.

#[path = "../../../tests/support/zoo.rs"]
#[allow(dead_code, reason = "the test of the library's own encodings uses the rest")]
mod zoo;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{Debug, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// An encoding of serde's data model.
trait Encoding {
    const NAME: &'static str;
    fn encode(value: &impl Serialize) -> Result<Vec<u8>, Box<dyn Error>>;
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Box<dyn Error>>;
}

macro_rules! encodings {
    ($($of:ident $name:literal: |$value:ident| $encode:expr, |$bytes:ident| $decode:expr;)*) => {
        $(
            struct $of;
            impl Encoding for $of {
                const NAME: &'static str = $name;
                fn encode($value: &impl Serialize) -> Result<Vec<u8>, Box<dyn Error>> {
                    Ok($encode)
                }
                fn decode<T: DeserializeOwned>($bytes: &[u8]) -> Result<T, Box<dyn Error>> {
                    Ok($decode)
                }
            }
        )*
        fn all_encodings() -> Vec<(&'static str, Outcomes)> {
            vec![$(($of::NAME, outcomes::<$of>())),*]
        }
    };
}

encodings! {
    Postcard "postcard":
        |value| postcard::to_stdvec(value)?,
        |bytes| postcard::from_bytes(bytes)?;
    Bincode "bincode":
        |value| bincode::serde::encode_to_vec(value, bincode::config::standard())?,
        |bytes| bincode::serde::decode_from_slice(bytes, bincode::config::standard())?.0;
    Bitcode "bitcode":
        |value| bitcode::serialize(value)?,
        |bytes| bitcode::deserialize(bytes)?;
    MessagePack "rmp-serde":
        |value| rmp_serde::to_vec(value)?,
        |bytes| rmp_serde::from_slice(bytes)?;
    NamedMessagePack "rmp-serde, with names":
        |value| rmp_serde::to_vec_named(value)?,
        |bytes| rmp_serde::from_slice(bytes)?;
    Cbor "ciborium":
        |value| {
            let mut bytes = Vec::new();
            ciborium::into_writer(value, &mut bytes)?;
            bytes
        },
        |bytes| ciborium::from_reader(bytes)?;
    Ron "ron":
        |value| ron::to_string(value)?.into_bytes(),
        |bytes| ron::de::from_bytes(bytes)?;
    Pot "pot":
        |value| pot::to_vec(value)?,
        |bytes| pot::from_slice(bytes)?;
    Flexbuffers "flexbuffers":
        |value| flexbuffers::to_vec(value)?,
        |bytes| flexbuffers::from_slice(bytes)?;
    PlainJson "serde_json, without features":
        |value| serde_json::to_vec(value)?,
        |bytes| serde_json::from_slice(bytes)?;
}

/// What became of the values of a type; the worst counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Equal,
    /// The encoder gave an error.
    Refused,
    /// The encoder gave bytes that the decoder does not read.
    Unread,
    Changed,
    Panicked,
}

/// Of each type, by the words that describe it.
type Outcomes = BTreeMap<&'static str, Outcome>;

fn outcomes<E: Encoding>() -> Outcomes {
    let mut visitor = Try::<E>(Outcomes::new(), std::marker::PhantomData);
    zoo::show(&mut visitor);
    visitor.0
}

struct Try<E>(Outcomes, std::marker::PhantomData<E>);

impl<E: Encoding> zoo::Visit for Try<E> {
    fn visit<T>(&mut self, _: &'static str, about: &'static str, values: Vec<T>)
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug + Clone,
    {
        let worst = values.iter().map(outcome::<E, T>).max().expect("a value");
        self.0.insert(about, worst);
    }
}

fn outcome<E: Encoding, T>(value: &T) -> Outcome
where
    T: Serialize + DeserializeOwned + PartialEq,
{
    let tried = AssertUnwindSafe(|| {
        let Ok(bytes) = E::encode(value) else { return Outcome::Refused };
        match E::decode::<T>(&bytes) {
            Ok(back) if back == *value => Outcome::Equal,
            Ok(_) => Outcome::Changed,
            Err(_) => Outcome::Unread,
        }
    });
    catch_unwind(tried).unwrap_or(Outcome::Panicked)
}

fn table(encodings: &[(&'static str, Outcomes)]) -> String {
    let mut table = "| | equal | refused | not read | changed | panicked | which are changed |\n\
                     |---|---|---|---|---|---|---|\n"
        .to_owned();
    for (name, outcomes) in encodings {
        let count = |of| outcomes.values().filter(|outcome| **outcome == of).count();
        let changed = outcomes.iter().filter(|(_, outcome)| **outcome == Outcome::Changed);
        let changed: Vec<_> = changed.map(|(about, _)| *about).collect();
        writeln!(
            table,
            "| {name} | {} | {} | {} | {} | {} | {} |",
            count(Outcome::Equal),
            count(Outcome::Refused),
            count(Outcome::Unread),
            count(Outcome::Changed),
            count(Outcome::Panicked),
            changed.join("; "),
        )
        .expect("a text");
    }
    table
}

const BEGIN: &str = "<!-- The table is written by crates/procession/benches/encodings: begin -->\n";
const END: &str = "<!-- end of the comparison -->";

fn main() -> Result<(), Box<dyn Error>> {
    std::panic::set_hook(Box::new(|_| {}));
    // The deepest types of the zoo need more stack than a main thread may have.
    let encodings = std::thread::Builder::new().stack_size(64 << 20).spawn(all_encodings)?;
    let table = table(&encodings.join().expect("no panic outside the encodings"));
    print!("{table}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../../docs/encodings.md");
    let page = std::fs::read_to_string(path)?;
    let (before, rest) = page.split_once(BEGIN).ok_or("the page has no place for the table")?;
    let (_, after) = rest.split_once(END).ok_or("the table has no end")?;
    std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}"))?;
    Ok(())
}
