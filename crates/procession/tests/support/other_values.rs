//! Values that arrive as other values, since their types find out from a value what it is, or leave fields out: each is
//! an error.

use std::collections::BTreeMap;

use libtest_mimic::Trial;
use procession::{Context, Encoding, Executor, Failure, ProcessPool, Registry, Task, TaskError};
use serde::{Deserialize, Serialize};

use crate::pool;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_numeric_map_key_is_not_decoded_as_a_text,
        a_binary_untagged_enum_that_becomes_another_variant_is_an_error,
        a_number_that_a_json_untagged_enum_changes_is_an_error,
        a_field_that_is_left_out_and_read_as_another_value_is_an_error,
        a_value_that_became_another_is_named_with_its_task_its_path_and_what_to_do,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Pair<0>>().with::<Pair<1>>()
}

/// Untagged enums with variants that can be decoded as each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Alike {
    Keys(BTreeMap<Key, u8>),
    FloatFirst(Vec<FloatFirst>),
    NarrowFirst(Vec<NarrowFirst>),
    Named(Named),
    Placed(Placed),
    Variant {
        #[serde(skip_serializing_if = "is_zero", default = "seven")]
        number: u8,
    },
}

/// Types that leave a zero out, which is read as another number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Named {
    #[serde(skip_serializing_if = "is_zero", default = "seven")]
    number: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Placed(u8, #[serde(skip_serializing_if = "is_zero", default = "seven")] u8);

fn is_zero(number: &u8) -> bool {
    *number == 0
}

fn seven() -> u8 {
    7
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
enum Key {
    Number(u32),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum FloatFirst {
    Float(f64),
    Integer(u64),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum NarrowFirst {
    Float(f32),
    Double(f64),
    Small(u8),
    Large(u64),
}

/// Returns its value; `ENCODING` is 0 for JSON and 1 for binary.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pair<const ENCODING: u8>(Alike);

impl<const ENCODING: u8> Task for Pair<ENCODING> {
    const NAME: &'static str = ["pair in JSON", "pair in binary"][ENCODING as usize];
    const ENCODING: Encoding = [Encoding::Json, Encoding::Binary][ENCODING as usize];
    type Output = Alike;
    fn run(self, _: &Context) -> Result<Alike, Failure> {
        Ok(self.0)
    }
}

fn a_numeric_map_key_is_not_decoded_as_a_text() {
    let pool = pool();
    let keys = |keys: &[Key]| Alike::Keys(keys.iter().cloned().map(|key| (key, 2)).collect());
    let texts = keys(&[Key::Text("x".to_owned()), Key::Text("1".to_owned())]);
    let numbers = keys(&[Key::Number(1)]);
    assert_eq!(pool.submit(Pair::<0>(texts.clone())).result(), Ok(texts.clone()));
    let refused = pool.submit(Pair::<0>(numbers.clone())).result().expect_err("refused");
    assert!(matches!(&refused, TaskError::Unencodable { what, .. } if what == "task"), "{refused}");
    for value in [texts, numbers] {
        assert_eq!(pool.submit(Pair::<1>(value.clone())).result(), Ok(value));
    }
}

/// Numbers of untagged enums that no reader takes for others.
fn of_the_first_variant() -> [Alike; 2] {
    use {FloatFirst as F, NarrowFirst as N};
    [
        Alike::FloatFirst(vec![F::Float(0.1), F::Float(-0.0), F::Float(1e300)]),
        Alike::NarrowFirst(vec![N::Float(0.1), N::Float(f32::MAX), N::Float(1.0)]),
    ]
}

fn a_binary_untagged_enum_that_becomes_another_variant_is_an_error() {
    use {FloatFirst as F, NarrowFirst as N};
    let mistaken = [
        Alike::FloatFirst(vec![F::Float(0.1), F::Integer(u64::MAX)]),
        Alike::FloatFirst(vec![F::Integer(1)]),
        Alike::NarrowFirst(vec![N::Double(1e300)]),
        Alike::NarrowFirst(vec![N::Double(0.1)]),
        Alike::NarrowFirst(vec![N::Large(5)]),
    ];
    are_equal_or_undecodable::<1>(&of_the_first_variant(), &mistaken);
}

fn a_number_that_a_json_untagged_enum_changes_is_an_error() {
    use {FloatFirst as F, NarrowFirst as N};
    let mistaken = [
        Alike::FloatFirst(vec![F::Float(0.1), F::Integer(u64::MAX)]),
        Alike::FloatFirst(vec![F::Integer(1)]),
        Alike::NarrowFirst(vec![N::Double(1e300)]),
        Alike::NarrowFirst(vec![N::Double(0.1234567890123)]),
    ];
    are_equal_or_undecodable::<0>(&of_the_first_variant(), &mistaken);
}

fn a_field_that_is_left_out_and_read_as_another_value_is_an_error() {
    let each = |number| {
        let named = |other| Alike::Named(Named { number, other });
        [named(None), named(Some(1)), Alike::Placed(Placed(1, number)), Alike::Variant { number }]
    };
    are_equal_or_undecodable::<0>(&each(3), &each(0));
    are_equal_or_undecodable::<1>(&each(3), &each(0));
}

/// The error of a value, submitted and in a chunk.
fn error_of<T: Task<Output = Alike> + Clone>(pool: &ProcessPool, task: &T) -> String {
    let submitted = pool.submit(task.clone()).result().expect_err("another value");
    let mapped: Vec<_> = pool.map(vec![task.clone(); 3]).collect();
    assert_eq!(mapped, vec![Err(submitted.clone()); 3]);
    submitted.to_string()
}

fn a_value_that_became_another_is_named_with_its_task_its_path_and_what_to_do() {
    use {FloatFirst as F, NarrowFirst as N};
    let pool = pool();
    let advice = "An untagged enum takes its first variant that fits, and a field that was left out its default: \
                  put the right variant first, or tag the enum, send the field";
    let integer = Alike::FloatFirst(vec![F::Float(0.1), F::Integer(1 << 60 | 1)]);
    assert_eq!(
        error_of(&pool, &Pair::<0>(integer.clone())),
        format!(
            "cannot decode task \"pair in JSON\" at .FloatFirst[1]: in JSON it was read back as another value \
             (1152921504606846977 (u64) became 1.152921504606847e18 (f64)). {advice}, or try Encoding::Binary"
        )
    );
    assert_eq!(
        error_of(&pool, &Pair::<1>(integer)),
        format!(
            "cannot decode task \"pair in binary\" at .FloatFirst[1]: in the binary encoding it was read back as \
             another value (1152921504606846977 (u64) became 1.152921504606847e18 (f64)). {advice}"
        )
    );
    let large = error_of(&pool, &Pair::<1>(Alike::NarrowFirst(vec![N::Large(5)])));
    assert!(
        large.contains("at .NarrowFirst[0]: ") && large.contains("(5 (u64) became "),
        "{large}"
    );
    let left_out = error_of(&pool, &Pair::<0>(Alike::Named(Named { number: 0, other: Some(1) })));
    assert!(left_out.contains("at .Named.number: "), "{left_out}");
    assert!(left_out.contains("(it was left out and became 7 (u64))"), "{left_out}");
    // Refused before it is sent.
    let keys = [(Key::Text("x".to_owned()), 1), (Key::Number(1), 2)].into();
    let refused = error_of(&pool, &Pair::<0>(Alike::Keys(keys)));
    assert!(
        refused.starts_with("cannot encode task \"pair in JSON\" at .Keys")
            && refused.contains(" in JSON it would be read back as another value ("),
        "{refused}"
    );
}

fn are_equal_or_undecodable<const ENCODING: u8>(equal: &[Alike], mistaken: &[Alike]) {
    let pool = pool();
    let tasks = || equal.iter().chain(mistaken).cloned().map(Pair::<ENCODING>);
    let submitted: Vec<_> = tasks().map(|task| pool.submit(task).result()).collect();
    let mapped: Vec<_> = pool.map(tasks()).collect();
    for results in [submitted, mapped] {
        for (result, value) in results.iter().zip(equal) {
            assert_eq!(result.as_ref(), Ok(value));
        }
        for (result, value) in results[equal.len()..].iter().zip(mistaken) {
            let is_seen = matches!(result, Err(TaskError::Undecodable { what, task, .. })
                if what == "task" && task == Pair::<ENCODING>::NAME);
            assert!(is_seen, "{value:?}: {result:?}");
        }
    }
}
