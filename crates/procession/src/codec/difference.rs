//! Finds where the encoding of a value differs from that of the value that was read back, for the error that reports it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::refusal::Refusal;
use super::stack::SHALLOW;
use super::{Encoding, binary};

/// Longer encodings, in bytes, are not compared part by part, since a part takes many times the memory of its bytes.
const MOST: usize = 256 * 1024;

/// The first part that differs: its path, and what became of it. `None` if none is found.
#[cold]
pub(super) fn between(encoding: Encoding, sent: &[u8], back: &[u8]) -> Option<Refusal> {
    if sent.len().max(back.len()) > MOST {
        return None;
    }
    let parts = |bytes| match encoding {
        Encoding::Json => serde_json::from_slice::<Part>(bytes).ok(),
        Encoding::Binary => binary::read::<Part>(bytes, SHALLOW).value.ok(),
    };
    difference(&parts(sent)?, &parts(back)?)
}

/// A part of a value, with the type that its encoding shows.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Leaf { kind: &'static str, text: String },
    Some(Box<Part>),
    Sequence(Vec<Part>),
    Map(Vec<(Part, Part)>),
}

fn difference(sent: &Part, back: &Part) -> Option<Refusal> {
    if sent == back {
        return None;
    }
    match (sent, back) {
        (Part::Some(sent), Part::Some(back)) => difference(sent, back),
        (Part::Sequence(sent), Part::Sequence(back)) => in_sequences(sent, back),
        (Part::Map(sent), Part::Map(back)) => in_maps(sent, back),
        _ => Some(Refusal::new(format!("{sent} became {back}"))),
    }
}

fn in_sequences(sent: &[Part], back: &[Part]) -> Option<Refusal> {
    let in_order = |parts: &[Part]| {
        let mut numbers: Vec<_> = (0..parts.len()).collect();
        numbers.sort_by(|one, other| parts[*one].cmp(&parts[*other]));
        numbers
    };
    // A hash set may have another order.
    let pairs = in_order(sent).into_iter().zip(in_order(back));
    if sent.len() == back.len() && pairs.into_iter().all(|(one, other)| sent[one] == back[other]) {
        return None;
    }
    let each = sent.iter().zip(back).enumerate();
    let mut found = each.filter_map(|(index, (sent, back))| {
        difference(sent, back).map(|refusal| refusal.in_element(index))
    });
    let (sent, back) = (sent.len(), back.len());
    let lengths = || (sent != back).then(|| Refusal::new(format!("{sent} elements became {back}")));
    found.next().or_else(lengths)
}

fn in_maps(sent: &[(Part, Part)], back: &[(Part, Part)]) -> Option<Refusal> {
    fn by_key(entries: &[(Part, Part)]) -> BTreeMap<&Part, &Part> {
        entries.iter().map(|(key, value)| (key, value)).collect()
    }
    let (were, are) = (by_key(sent), by_key(back));
    let of_key = |key: &Part| {
        let refusal = match (were.get(key), are.get(key)) {
            (Some(was), Some(is)) => difference(was, is)?,
            (Some(was), None) => Refusal::new(format!("{was} is missing in what was read")),
            (None, Some(is)) => Refusal::new(format!("it was left out and became {is}")),
            (None, None) => return None,
        };
        Some(refusal.under_key(&key.as_json()))
    };
    sent.iter().chain(back).find_map(|(key, _)| of_key(key))
}

impl Part {
    fn leaf(kind: &'static str, text: impl fmt::Debug) -> Self {
        Self::Leaf { kind, text: format!("{text:?}") }
    }

    fn as_json(&self) -> Vec<u8> {
        match self {
            Self::Leaf { text, .. } => text.clone().into_bytes(),
            other => other.to_string().into_bytes(),
        }
    }
}

/// A number with its kind; of a long text the first characters.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 40;
        match self {
            Self::Leaf { kind, text } => {
                match text.char_indices().nth(LONGEST) {
                    Some((end, _)) => write!(f, "{}…", &text[..end])?,
                    None => f.write_str(text)?,
                }
                if kind.is_empty() { Ok(()) } else { write!(f, " ({kind})") }
            }
            Self::Some(part) => write!(f, "Some({part})"),
            Self::Sequence(parts) => write!(f, "a sequence of {}", parts.len()),
            Self::Map(entries) => match &entries[..] {
                // A variant with its data looks the same.
                [(Self::Leaf { text, .. }, _)] => write!(f, "{{{text}: ..}}"),
                entries => write!(f, "a map of {}", entries.len()),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartVisitor)
    }
}

struct PartVisitor;

macro_rules! leaves {
    ($($method:ident: $type:ty = $kind:literal)*) => {
        $(fn $method<E>(self, value: $type) -> Result<Part, E> {
            Ok(Part::leaf($kind, value))
        })*
    };
}

impl<'de> Visitor<'de> for PartVisitor {
    type Value = Part;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    leaves! {
        visit_bool: bool = "" visit_char: char = "" visit_str: &str = "" visit_bytes: &[u8] = "bytes"
        visit_u8: u8 = "u8" visit_u16: u16 = "u16" visit_u32: u32 = "u32" visit_u64: u64 = "u64"
        visit_u128: u128 = "u128" visit_i8: i8 = "i8" visit_i16: i16 = "i16" visit_i32: i32 = "i32"
        visit_i64: i64 = "i64" visit_i128: i128 = "i128" visit_f32: f32 = "f32" visit_f64: f64 = "f64"
    }

    fn visit_unit<E>(self) -> Result<Part, E> {
        Ok(Part::Leaf { kind: "", text: "nothing".to_owned() })
    }

    fn visit_none<E>(self) -> Result<Part, E> {
        Ok(Part::Leaf { kind: "", text: "None".to_owned() })
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Part, D::Error> {
        Part::deserialize(deserializer).map(|part| Part::Some(Box::new(part)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Part, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = elements.next_element()? {
            parts.push(part);
        }
        Ok(Part::Sequence(parts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Part, A::Error> {
        let mut parts = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            parts.push(entry);
        }
        Ok(Part::Map(parts))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use serde::Serialize;

    use super::*;
    use crate::codec::checks::rewritten;
    use crate::codec::{BinaryEncoding, JsonEncoding, TypedEncoding};

    fn written<T: Serialize>(encoding: Encoding, value: &T) -> Vec<u8> {
        let write = |out: &mut Vec<u8>| match encoding {
            Encoding::Json => JsonEncoding::write(value, out),
            Encoding::Binary => BinaryEncoding::write(value, out),
        };
        rewritten(encoding, false, &write).expect("written").bytes
    }

    fn shown<T: Serialize, U: Serialize>(encoding: Encoding, sent: &T, back: &U) -> Option<String> {
        let [sent, back] = [written(encoding, sent), written(encoding, back)];
        between(encoding, &sent, &back).map(|refusal| refusal.to_string())
    }

    #[derive(Serialize)]
    struct Row<N> {
        name: &'static str,
        sizes: Vec<Option<N>>,
        by_key: BTreeMap<u8, N>,
    }

    fn row<N: Clone>(of: N) -> Row<N> {
        let by_key = (1..4).map(|key| (key, of.clone())).collect();
        Row { name: "row", sizes: vec![None, Some(of)], by_key }
    }

    #[test]
    fn the_first_part_that_differs_is_named_with_its_path() {
        let json = |sent: &Row<f64>, back: &Row<f64>| shown(Encoding::Json, sent, back);
        assert_eq!(json(&row(0.5), &row(0.5)), None);
        let mut other = row(0.5);
        other.by_key.insert(2, 1.5);
        assert_eq!(
            json(&row(0.5), &other).as_deref(),
            Some(".by_key[\"2\"]: 0.5 (f64) became 1.5 (f64)")
        );
        other.by_key.remove(&2);
        assert_eq!(
            json(&row(0.5), &other).as_deref(),
            Some(".by_key[\"2\"]: 0.5 (f64) is missing in what was read")
        );
        assert_eq!(
            json(&other, &row(0.5)).as_deref(),
            Some(".by_key[\"2\"]: it was left out and became 0.5 (f64)")
        );
        assert_eq!(
            shown(Encoding::Binary, &row(5_u64), &row(5_u8)).as_deref(),
            Some(".sizes[1]: 5 (u64) became 5 (u8)")
        );
        assert_eq!(
            shown(Encoding::Binary, &row("a"), &row("b")).as_deref(),
            Some(".sizes[1]: \"a\" became \"b\"")
        );
        let (one, two) = (vec![1_u8, 2], vec![1_u8, 2, 3]);
        assert_eq!(
            shown(Encoding::Json, &(one, 7), &(two, 7)).as_deref(),
            Some("[0]: 2 elements became 3")
        );
    }

    #[test]
    fn sets_of_another_order_do_not_differ_and_long_values_are_not_compared() {
        let sets: [HashSet<u32>; 2] = [(0..100).collect(), (0..100).rev().collect()];
        assert_eq!(shown(Encoding::Json, &sets[0], &sets[1]), None);
        let long = |last: u8| [vec![7; MOST], vec![last]].concat();
        assert_eq!(shown(Encoding::Binary, &long(1), &long(2)), None);
        let text = "ü".repeat(1_000);
        let found = shown(Encoding::Json, &text, &1.5).expect("a difference");
        assert!(found.chars().count() < 100 && found.ends_with("… became 1.5 (f64)"), "{found}");
    }
}
