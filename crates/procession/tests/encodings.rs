//! Which values the encodings hold: writes and checks the table in `docs/encodings.md`, and checks
//! that every executor returns an equal value or refuses it before it is sent.

/// A list of trials from the functions of a module.
macro_rules! trials {
    ($($test:ident),* $(,)?) => {
        vec![$($crate::harness::trial(concat!("encodings::", stringify!($test)), $test)),*]
    };
}

#[path = "support/harness.rs"]
mod harness;
#[path = "support/other_values.rs"]
mod other_values;
#[path = "support/zoo.rs"]
#[allow(dead_code, reason = "the comparison with other encodings uses the rest")]
mod zoo;

use std::fmt::Write;

use procession::{
    Blob, Context, Encoding, Executor, Failure, ProcessPool, Registry, Sequential, Task, TaskError,
    ThreadPool,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde::{Deserialize, Serialize};

use self::zoo::{Animal, F32, F64};

/// Returns an animal, in JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Carry(Animal);

impl Task for Carry {
    const NAME: &'static str = "carry";
    type Output = Animal;
    fn run(self, _: &Context) -> Result<Animal, Failure> {
        Ok(self.0)
    }
}

/// Returns an animal, in the binary encoding.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct CarryBinary(Animal);

impl Task for CarryBinary {
    const NAME: &'static str = "carry in binary";
    const ENCODING: Encoding = Encoding::Binary;
    type Output = Animal;
    fn run(self, _: &Context) -> Result<Animal, Failure> {
        Ok(self.0)
    }
}

/// Returns a report with NaN, which JSON cannot hold.
#[derive(Serialize, Deserialize)]
struct Measure;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Report {
    items: Vec<Item>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    ratio: Option<f64>,
}

impl Task for Measure {
    const NAME: &'static str = "measure";
    type Output = Report;
    fn run(self, _: &Context) -> Result<Report, Failure> {
        Ok(report())
    }
}

fn report() -> Report {
    let ratios = [Some(0.5), None, Some(1.0), Some(f64::NAN)];
    Report { items: ratios.map(|ratio| Item { ratio }).into() }
}

/// Returns its blobs, a text and bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Blobs(Vec<Blob>, String, Vec<u8>);

impl Task for Blobs {
    const NAME: &'static str = "blobs";
    const ENCODING: Encoding = Encoding::Binary;
    type Output = Self;
    fn run(self, _: &Context) -> Result<Self, Failure> {
        Ok(self)
    }
}

fn main() {
    harness::hush_panics_on_purpose();
    let registry = Registry::new().with::<Carry>().with::<CarryBinary>();
    let registry = registry.with::<Measure>().with::<Blobs>();
    procession::worker::serve_if_asked(other_values::add_to(registry));
    let trials = trials![
        the_table_in_the_docs_is_what_the_encodings_hold,
        every_executor_gives_equal_values_or_refuses_them,
        a_refused_task_is_not_run_and_names_its_field,
        a_refused_output_names_its_task_and_field,
        binary_tasks_of_all_sizes_return_equal,
    ];
    harness::run(trials.into_iter().chain(other_values::trials()).collect());
}

fn pool() -> ProcessPool {
    ProcessPool::builder().workers(2).on_output(|_| {}).build().expect("a pool")
}

/// What happened to a value, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RoundTrip {
    Equal,
    Refused,
    /// Refused too late, by the reader.
    Unread,
    Changed,
}

fn round_trip(animal: &Animal, result: &Result<Animal, TaskError>) -> RoundTrip {
    match result {
        Ok(back) if back == animal => RoundTrip::Equal,
        Ok(_) => RoundTrip::Changed,
        Err(TaskError::Unencodable { what, .. }) if what == "task" => RoundTrip::Refused,
        Err(_) => RoundTrip::Unread,
    }
}

fn round_trips<T: Task<Output = Animal>>(
    pool: &ProcessPool,
    animals: &[Animal],
    task: fn(Animal) -> T,
) -> Vec<RoundTrip> {
    let results = pool.map(animals.iter().cloned().map(task));
    animals.iter().zip(results).map(|(animal, result)| round_trip(animal, &result)).collect()
}

fn cell(trips: &[RoundTrip]) -> String {
    let count = |trip| trips.iter().filter(|other| **other == trip).count();
    let names = [
        (RoundTrip::Equal, "equal"),
        (RoundTrip::Refused, "refused"),
        (RoundTrip::Unread, "NOT READ"),
        (RoundTrip::Changed, "CHANGED"),
    ];
    let there: Vec<_> = names.into_iter().filter(|(trip, _)| count(*trip) > 0).collect();
    match there[..] {
        [(_, name)] => name.to_owned(),
        _ => there
            .iter()
            .map(|(f, name)| format!("{} {name}", count(*f)))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

const BEGIN: &str =
    "<!-- The table is written by crates/procession/tests/encodings.rs: begin -->\n";
const END: &str = "<!-- end -->";

fn the_table_in_the_docs_is_what_the_encodings_hold() {
    let pool = pool();
    let all = zoo::all();
    let mut table = "| | JSON | binary |\n|---|---|---|\n".to_owned();
    let (mut json_holds, mut binary_holds) = (0, 0);
    for (name, about, animals) in &all {
        let json = round_trips(&pool, animals, Carry);
        let binary = round_trips(&pool, animals, CarryBinary);
        let worst = json.iter().chain(&binary).max();
        assert!(worst <= Some(&RoundTrip::Refused), "{name}: {json:?} {binary:?}");
        json_holds += usize::from(json.iter().all(|trip| *trip == RoundTrip::Equal));
        binary_holds += usize::from(binary.iter().all(|trip| *trip == RoundTrip::Equal));
        writeln!(table, "| {about} | {} | {} |", cell(&json), cell(&binary)).expect("a text");
    }
    let number = all.len();
    writeln!(
        table,
        "| **all values equal** | **{json_holds} of {number}** | **{binary_holds} of {number}** |"
    )
    .expect("a text");
    assert!(number >= 60 && binary_holds * 60 >= number * 56, "{binary_holds} of {number}");

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/encodings.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("a place for the table");
    let (there, after) = rest.split_once(END).expect("the end of the table");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).expect("written");
    } else {
        assert_eq!(there, table, "UPDATE_DOCS=1 cargo test --test encodings writes it anew");
    }
}

/// Known animals, and animals with random bits.
fn animals() -> impl Strategy<Value = Vec<Animal>> {
    let known: Vec<_> = zoo::all().into_iter().flat_map(|(_, _, animals)| animals).collect();
    let float = any::<u64>().prop_map(|bits| F64(f64::from_bits(bits)));
    let animal = prop_oneof![
        3 => proptest::sample::select(known),
        1 => float.clone().prop_map(Animal::Float64),
        1 => (0.0..1.0_f64).prop_map(|value| Animal::Float64(F64(value))),
        1 => any::<u32>().prop_map(|bits| Animal::Float32(F32(f32::from_bits(bits)))),
        1 => proptest::option::of(float.clone()).prop_map(Animal::MaybeFloat),
        1 => proptest::collection::vec(float, 0..20).prop_map(Animal::Vector),
        1 => any::<(i128, u128)>().prop_map(Animal::Int128),
        1 => any::<String>().prop_map(Animal::Text),
        1 => any::<Option<Option<u8>>>().prop_map(Animal::NestedOption),
        1 => any::<Vec<Option<Option<Option<bool>>>>>().prop_map(Animal::DeepOption),
        1 => any::<std::collections::BTreeMap<(u8, String), u8>>().prop_map(Animal::TupleKeys),
        1 => any::<std::collections::BTreeMap<i128, u8>>().prop_map(Animal::IntKeys),
        1 => any::<Result<Option<u8>, String>>().prop_map(Animal::Outcome),
    ];
    proptest::collection::vec(animal, 1..30)
}

fn every_executor_gives_equal_values_or_refuses_them() {
    let (sequential, threads, processes) = (Sequential::new(), ThreadPool::new(2), pool());
    // After these the pool knows that the tasks are short, and sends them in chunks.
    let short = || (0..2000_u64).map(|n| Animal::Int64((0, n)));
    assert!(processes.map(short().map(Carry)).zip(short()).all(|(is, was)| is == Ok(was)));
    let config = Config { cases: 100, failure_persistence: None, ..Config::default() };
    let test = |animals: Vec<Animal>| {
        let equal = |results: Vec<Result<Animal, TaskError>>| {
            for (animal, result) in animals.iter().zip(results) {
                prop_assert_eq!(round_trip(animal, &result), RoundTrip::Equal, "{:?}", result);
            }
            Ok(())
        };
        let carry = || animals.iter().cloned().map(Carry);
        equal(sequential.map(carry()).collect())?;
        equal(threads.map(carry()).collect())?;
        let one_by_one: Vec<_> = carry().map(|task| threads.submit(task)).collect();
        equal(one_by_one.into_iter().map(|future| future.result()).collect())?;

        let mapped = [
            round_trips(&processes, &animals, Carry),
            round_trips(&processes, &animals, CarryBinary),
        ];
        let json: Vec<_> = carry().map(|task| processes.submit(task)).collect();
        let binary = animals.iter().cloned().map(CarryBinary);
        let binary: Vec<_> = binary.map(|task| processes.submit(task)).collect();
        let submitted = [json, binary].map(|futures| {
            let results = futures.into_iter().map(|future| future.result());
            animals
                .iter()
                .zip(results)
                .map(|(animal, result)| round_trip(animal, &result))
                .collect::<Vec<_>>()
        });
        prop_assert_eq!(&mapped, &submitted);
        let worst = mapped.iter().flatten().max();
        prop_assert!(worst <= Some(&RoundTrip::Refused), "{:?}", mapped);
        Ok(())
    };
    TestRunner::new(config).run(&animals(), test).expect("equal or refused");
}

fn a_refused_task_is_not_run_and_names_its_field() {
    let pool = pool();
    let inner = vec![None, Some(Some(None))];
    let refused = pool.submit(Carry(Animal::DeepOption(inner.clone()))).result();
    let expected = TaskError::Unencodable {
        what: "task".to_owned(),
        task: "carry".to_owned(),
        field: ".DeepOption[1]".to_owned(),
        reason: "in JSON this value inside Some(..) would be read as None".to_owned(),
    };
    assert_eq!(refused, Err(expected.clone()));
    assert_eq!(
        expected.to_string(),
        "cannot encode task \"carry\" at .DeepOption[1]: in JSON this value inside Some(..) would be read as None"
    );
    let mapped: Vec<_> = pool.map([Carry(Animal::DeepOption(inner.clone()))]).collect();
    assert_eq!(mapped, [Err(expected)]);
    assert_eq!(pool.stats().done + pool.stats().failed, 0, "nothing was sent");
    let held = pool.submit(CarryBinary(Animal::DeepOption(inner.clone()))).result();
    assert_eq!(held, Ok(Animal::DeepOption(inner)));
}

fn a_refused_output_names_its_task_and_field() {
    let refused = pool().submit(Measure).result().expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "cannot encode the output of task \"measure\" at .items[3].ratio: JSON has no number NaN"
    );
}

fn binary_tasks_of_all_sizes_return_equal() {
    let pool = pool();
    for size in [0, 1, 257, 65_450, 65_536, 70_000, 3_000_000] {
        let bytes: Vec<u8> = (0..size).map(|n: usize| (n % 251) as u8).collect();
        let blobs = vec![Blob::from(&bytes[..]), Blob::default(), Blob::from(vec![255; size / 2])];
        let task = Blobs(blobs, "ü".repeat(size / 3), bytes);
        assert!(pool.submit(task.clone()).result().as_ref() == Ok(&task), "{size}");
        let mapped = pool.map(vec![task.clone(); 3]);
        assert!(mapped.into_iter().all(|back| back.as_ref() == Ok(&task)), "{size}");
    }
}
