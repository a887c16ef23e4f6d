//! A million records of CSV through `map`: short tasks that hold a struct with texts. Beside it the same in one
//! thread, by rayon's `par_bridge`, and with a thousand records to a task, packed by hand.

use divan::Bencher;
use divan::counter::ItemsCount;
use procession::{Context, Encoding, Executor, Failure, Registry, Task};
use rayon::iter::{ParallelBridge, ParallelIterator};
use serde::{Deserialize, Serialize};

use crate::tasks::{self, WORKERS};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    id: u64,
    name: String,
    city: String,
    amount: f64,
    quantity: u32,
}

impl Record {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(',');
        Some(Self {
            id: fields.next()?.parse().ok()?,
            name: fields.next()?.to_owned(),
            city: fields.next()?.to_owned(),
            amount: fields.next()?.parse().ok()?,
            quantity: fields.next()?.parse().ok()?,
        })
    }

    /// About a third of a microsecond of work.
    fn value(&self) -> f64 {
        let texts = self.name.bytes().chain(self.city.bytes());
        let hash = texts.fold(self.id, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(31));
        self.amount * f64::from(self.quantity) + (hash % 7) as f64
    }
}

macro_rules! tasks {
    ($($name:ident($type:ty) -> $output:ty, $text:literal, $encoding:ident, $run:expr;)*) => {
        $(#[derive(Debug, Clone, Serialize, Deserialize)]
        struct $name($type);

        impl Task for $name {
            const NAME: &'static str = $text;
            const ENCODING: Encoding = Encoding::$encoding;
            type Output = $output;

            fn run(self, _: &Context) -> Result<$output, Failure> {
                let run: fn(&$type) -> $output = $run;
                Ok(run(&self.0))
            }
        })*
    };
}

tasks! {
    ValueJson(Record) -> f64, "value of a record in JSON", Json, Record::value;
    ValueBinary(Record) -> f64, "value of a record in binary", Binary, Record::value;
    ValuesBinary(Vec<Record>) -> f64, "value of records in binary", Binary, |records| {
        records.iter().map(Record::value).sum()
    };
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<ValueJson>().with::<ValueBinary>().with::<ValuesBinary>()
}

fn count() -> usize {
    if crate::is_measured() { 1_000_000 } else { 2_000 }
}

fn text() -> String {
    let line = |n| format!("{n},customer number {n},Town {},{}.25,{}\n", n % 997, n % 89, n % 13);
    (0..count()).map(line).collect()
}

fn records(text: &str) -> impl Iterator<Item = Record> + Send {
    text.lines().map(|line| Record::parse(line).expect("a record"))
}

/// Sums the values of all records, in several ways.
fn summed(bencher: Bencher, sum: impl Fn(&str) -> f64) {
    let text = text();
    let expected: f64 = records(&text).map(|record| record.value()).sum();
    bencher.counter(ItemsCount::new(count())).bench_local(|| {
        // The order of the additions differs.
        assert!((sum(&text) / expected - 1.0).abs() < 1e-9);
    });
}

#[divan::bench(sample_count = 5)]
fn records_in_one_thread(bencher: Bencher) {
    summed(bencher, |text| records(text).map(|record| record.value()).sum());
}

#[divan::bench(sample_count = 5)]
fn records_by_rayon_par_bridge(bencher: Bencher) {
    summed(bencher, |text| records(text).par_bridge().map(|record| record.value()).sum());
}

#[divan::bench(sample_count = 5)]
fn records_by_map_in_json(bencher: Bencher) {
    let pool = tasks::processes(WORKERS);
    let sum =
        |text: &str| pool.map(records(text).map(ValueJson)).map(|it| it.expect("a value")).sum();
    summed(bencher, sum);
}

#[divan::bench(sample_count = 5)]
fn records_by_map_in_binary(bencher: Bencher) {
    let pool = tasks::processes(WORKERS);
    let sum =
        |text: &str| pool.map(records(text).map(ValueBinary)).map(|it| it.expect("a value")).sum();
    summed(bencher, sum);
}

#[divan::bench(sample_count = 5)]
fn records_packed_by_hand(bencher: Bencher) {
    let pool = tasks::processes(WORKERS);
    summed(bencher, |text| {
        let mut records = records(text);
        let packs = std::iter::from_fn(|| {
            let pack: Vec<_> = records.by_ref().take(1_000).collect();
            (!pack.is_empty()).then_some(ValuesBinary(pack))
        });
        pool.map(packs).map(|value| value.expect("a value")).sum()
    });
}
