//! Blobs: bytes that are sent beside the encoded task or output.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use libtest_mimic::Trial;
use procession::{
    Blob, Context, Executor, Failure, Registry, Retries, Sequential, Task, ThreadPool,
};
use serde::{Deserialize, Serialize};

use crate::harness::{Gate, ON_PURPOSE};
use crate::tasks::{Hoard, Pass, pool, quiet, succeeds_with, warm_up};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        blobs_of_all_sizes_go_both_ways,
        many_blobs_travel_with_one_task,
        waiting_tasks_with_blobs_take_no_descriptors,
        more_blobs_than_fit_into_a_channel_travel_with_one_task,
        three_hundred_tasks_at_a_time_with_a_blob_each_are_all_done,
        a_blob_that_is_kept_is_inherited_by_no_program,
        nobody_can_write_to_what_a_task_has_received,
        blobs_that_no_worker_can_take_in_cost_only_their_task,
        outputs_that_find_few_descriptors_are_passed_on_all_the_same,
        an_output_that_finds_no_descriptor_costs_only_its_task,
        a_blob_may_be_passed_on_by_several_workers,
        blobs_travel_with_tasks_of_a_map_as_well,
        a_blob_is_there_again_at_the_next_attempt,
        a_blob_that_a_task_writes_as_json_itself_is_a_sequence,
        other_executors_hand_blobs_over_as_they_are,
        an_input_that_tasks_share_is_copied_once,
    ]
}

/// What is done with bytes on their way.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Turn {
    name: String,
    bytes: Vec<Blob>,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum How {
    Back,
    Around,
    FailAtFirst,
    WriteToo,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Turned {
    name: String,
    bytes: Vec<Blob>,
    written: Option<usize>,
}

impl Task for Turn {
    const NAME: &'static str = "turn";
    type Output = Turned;

    fn run(self, context: &Context) -> Result<Turned, Failure> {
        let Self { name, bytes, how } = self;
        if how == How::FailAtFirst && context.attempt() == 1 {
            return Err(Failure::msg(ON_PURPOSE));
        }
        let around = |blob: Blob| blob.iter().rev().copied().collect::<Vec<u8>>().into();
        let bytes =
            if how == How::Around { bytes.into_iter().map(around).collect() } else { bytes };
        let written = match how {
            How::WriteToo => Some(serde_json::to_string(&bytes)?.len()),
            _ => None,
        };
        Ok(Turned { name, bytes, written })
    }
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Turn>().with::<FileOf>().with::<Scribble>()
}

/// Writes to all memory files that it finds in its process, and to their mappings, then fails at
/// its first attempt, and gives what it had received at the second.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Scribble(Blob);

impl Task for Scribble {
    const NAME: &'static str = "scribble";
    type Output = Blob;

    fn run(self, context: &Context) -> Result<Blob, Failure> {
        if context.attempt() > 1 {
            return Ok(self.0);
        }
        let open = fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.path());
        let is_bytes = |path: &std::path::PathBuf| {
            let link = fs::read_link(path).unwrap_or_default();
            link.to_string_lossy().starts_with("/memfd:procession-bytes")
        };
        let files: Vec<_> = open.filter(is_bytes).collect();
        if files.is_empty() {
            return Err(Failure::msg("no memory file"));
        }
        for file in files {
            if let Ok(file) = fs::File::options().write(true).open(&file) {
                let written = file.write_at(b"scribbled", 0).is_ok() || file.set_len(0).is_ok();
                assert!(!written, "a memory file was written to");
            }
        }
        let memory = fs::File::options().write(true).open("/proc/self/mem")?;
        // Where that is possible at all, it changes this process's own view only.
        let _ = memory.write_at(b"scribbled", self.0.as_ptr() as u64);
        std::process::abort();
    }
}

fn three_hundred_tasks_at_a_time_with_a_blob_each_are_all_done() {
    for len in [300, 20_000] {
        let pool = quiet().workers(1).concurrency(300).build().expect("a pool");
        let futures: Vec<_> =
            (0..300).map(|_| pool.submit(turn(vec![bytes(len)], How::Back))).collect();
        for future in futures {
            assert_eq!(future.result().expect("an output").bytes, [bytes(len)]);
        }
    }
}

fn a_blob_that_is_kept_is_inherited_by_no_program() {
    if !cfg!(all(target_os = "linux", not(feature = "portable"))) {
        crate::harness::skip("it is about Linux");
    }
    let pool = pool(1);
    let back = pool.submit(turn(vec![bytes(100_000)], How::Back)).result().expect("an output");
    let kept = (back.bytes[0].clone(), back);
    let mut sleeps = std::process::Command::new("sleep").arg("60").spawn().expect("a program");
    let open = fs::read_dir(format!("/proc/{}/fd", sleeps.id())).expect("a list").flatten();
    let links: Vec<_> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    sleeps.kill().expect("killed");
    sleeps.wait().expect("its end");
    let is_memory = |link: &std::path::PathBuf| link.to_string_lossy().contains("memfd");
    assert!(!links.iter().any(is_memory), "{links:?}");
    assert_eq!(kept.0, bytes(100_000));
}

fn nobody_can_write_to_what_a_task_has_received() {
    if !cfg!(all(target_os = "linux", not(feature = "portable"))) {
        crate::harness::skip("it is about Linux");
    }
    let pool = quiet().workers(2).retries(Retries::times(1).on_crash(true)).build();
    let pool = pool.expect("a pool");
    let first = pool.submit(turn(vec![bytes(100_000)], How::Back)).result().expect("an output");
    let received = first.bytes[0].clone();
    let again = pool.submit(Scribble(received.clone())).result().expect("a second attempt");
    assert!(again == bytes(100_000), "what its retry was given");
    assert!(received == bytes(100_000), "what its sender holds");
}

/// The longest blobs that are part of the encoding, in bytes, if a segment may be free for longer ones.
pub(crate) const SHORT_IN_JSON: usize = 2 * 1024;
pub(crate) const SHORT_IN_BINARY: usize = 12 * 1024;

pub(crate) fn bytes(len: usize) -> Blob {
    (0..len).map(|n| (n % 251) as u8).collect::<Vec<_>>().into()
}

fn turn(bytes: Vec<Blob>, how: How) -> Turn {
    Turn { name: "n\n\"{}[]".to_owned(), bytes, how }
}

fn blobs_of_all_sizes_go_both_ways() {
    let pool = pool(2);
    for len in [
        0,
        1,
        257,
        SHORT_IN_JSON,
        SHORT_IN_JSON + 1,
        SHORT_IN_BINARY,
        SHORT_IN_BINARY + 1,
        65_535,
        65_536,
        65_537,
        1 << 20,
        10 << 20,
    ] {
        let back = pool.submit(turn(vec![bytes(len)], How::Back)).result().expect("an output");
        assert_eq!(back.bytes, [bytes(len)], "{len} bytes");
        let around = pool.submit(turn(vec![bytes(len)], How::Around)).result().expect("an output");
        assert!(around.bytes[0].iter().rev().eq(bytes(len).iter()), "{len} bytes");
        assert_eq!(around.bytes[0].clone().into_vec().len(), len);
    }
}

fn many_blobs_travel_with_one_task() {
    let pool = pool(1);
    // More than go with one message, between short ones that travel in the text.
    let many: Vec<_> = (0..200).map(|n| bytes(if n % 2 == 0 { 20_000 + n } else { n })).collect();
    let back = pool.submit(turn(many.clone(), How::Back)).result().expect("an output");
    assert_eq!(back.bytes, many);
}

fn waiting_tasks_with_blobs_take_no_descriptors() {
    // No other test has files of this length.
    const LEN: usize = 40_013;
    let is_theirs = |metadata: &fs::Metadata| metadata.len() == LEN as u64;
    let files = || {
        let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        open.filter_map(|entry| fs::metadata(entry.path()).ok()).filter(is_theirs).count()
    };
    let pool = pool(1);
    let gate = Gate::new();
    let running = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let waiting: Vec<_> =
        (0..500).map(|_| pool.submit(turn(vec![bytes(LEN)], How::Back))).collect();
    assert!(files() < 100, "{} for 500 tasks", files());
    gate.open();
    running.result().expect("an output");
    for future in waiting {
        assert_eq!(future.result().expect("an output").bytes, [bytes(LEN)]);
    }
}

fn more_blobs_than_fit_into_a_channel_travel_with_one_task() {
    let pool = pool(1);
    let many: Vec<_> = (0..600).map(|n| bytes(SHORT_IN_BINARY + 1 + n % 10)).collect();
    let back = pool.submit(turn(many.clone(), How::Back)).result().expect("an output");
    assert!(back.bytes == many);
}

fn blobs_that_no_worker_can_take_in_cost_only_their_task() {
    let limits = procession::Limits::none().open_files(40);
    let pool = quiet().workers(1).limits(limits).build().expect("a pool");
    let lost = pool.submit(turn((0..100).map(|_| bytes(20_000)).collect(), How::Back)).result();
    let Err(procession::TaskError::Undelivered { what, reason }) = lost else { panic!("{lost:?}") };
    assert_eq!(what, "task");
    assert!(reason.starts_with("2 fresh workers could not receive it: Too many open"), "{reason}");
    succeeds_with(&pool, 20);
}

fn outputs_that_find_few_descriptors_are_passed_on_all_the_same() {
    let limits = procession::Limits::none().open_files(64);
    let pool = quiet().workers(1).limits(limits).build().expect("a pool");
    for left in [20, 2] {
        let (text, blobs) = pool
            .submit(Hoard(left, 1_000_000, vec![20_000; 50]))
            .result()
            .expect("an output, by and by");
        assert_eq!((text.len(), blobs.len()), (1_000_000, 50));
        assert!(blobs.iter().all(|blob| blob.len() == 20_000));
    }
    // Short ones can do without.
    let (_, blobs) = pool.submit(Hoard(0, 1, vec![1_000; 20])).result().expect("an output");
    assert_eq!(blobs, vec![vec![1; 1_000].into(); 20]);
    assert_eq!(pool.stats().respawned, 0);
}

fn an_output_that_finds_no_descriptor_costs_only_its_task() {
    let limits = procession::Limits::none().open_files(64);
    let pool = quiet().workers(1).limits(limits).build().expect("a pool");
    for hoard in [Hoard(0, 1_000_000, Vec::new()), Hoard(0, 1, vec![100_000; 3])] {
        let lost = pool.submit(hoard).result();
        let Err(procession::TaskError::Undelivered { what, reason }) = lost else {
            panic!("{lost:?}")
        };
        assert_eq!(what, "output");
        assert!(reason.starts_with("the worker cannot send an attachment: Too many"), "{reason}");
        succeeds_with(&pool, 20);
    }
}

fn a_blob_may_be_passed_on_by_several_workers() {
    let pool = pool(2);
    let mut blob = bytes(100_000);
    for _ in 0..10 {
        let back = pool.submit(turn(vec![blob.clone(), blob], How::Back)).result();
        blob = back.expect("an output").bytes.pop().expect("two blobs");
    }
    assert_eq!(blob, bytes(100_000));
}

/// Gives the number of the memory file in which its input is.
#[derive(Serialize, Deserialize)]
pub(crate) struct FileOf(Blob);

impl Task for FileOf {
    const NAME: &'static str = "file of its input";
    type Output = String;

    fn run(self, _: &Context) -> Result<String, Failure> {
        let at = format!("{:x}-", self.0.as_ptr() as usize);
        let maps = fs::read_to_string("/proc/self/maps")?;
        let line = maps.lines().find(|line| line.trim_start_matches('0').starts_with(&at));
        let line = line.filter(|line| line.contains("memfd:procession-bytes"));
        let number = line.and_then(|line| line.split_whitespace().nth(4));
        Ok(number.ok_or("the input is in no memory file")?.to_owned())
    }
}

fn an_input_that_tasks_share_is_copied_once() {
    if !cfg!(all(target_os = "linux", not(feature = "portable"))) {
        crate::harness::skip("it is about Linux");
    }
    let is_open = |number: &String| {
        let open = fs::read_dir("/proc/self/fd").expect("a list").flatten();
        let mut inodes = open.filter_map(|entry| Some(fs::metadata(entry.path()).ok()?.ino()));
        inodes.any(|inode| inode.to_string() == *number)
    };
    let pool = pool(2);
    let shared = bytes(1 << 20);
    let futures: Vec<_> = (0..10).map(|_| pool.submit(FileOf(shared.clone()))).collect();
    let numbers: Vec<_> = futures.into_iter().map(|future| future.result()).collect();
    let number = numbers[0].clone().expect("a number");
    assert_eq!(numbers, vec![Ok(number.clone()); 10]);
    let other = pool.submit(FileOf(bytes(1 << 20))).result().expect("a number");
    assert_ne!(other, number, "an input of its own");
    assert!(is_open(&number) && !is_open(&other));
    drop(shared);
    assert!(!is_open(&number));
}

fn blobs_travel_with_tasks_of_a_map_as_well() {
    let pool = pool(2);
    warm_up(&pool);
    // Some of them short enough to travel together, some not.
    let lens = || (0..300).map(|n| if n % 50 == 20 { 100_000 } else { n % 7 });
    let turned = pool.map(lens().map(|len| turn(vec![bytes(len)], How::Back)));
    for (len, turned) in lens().zip(turned) {
        assert_eq!(turned.expect("an output").bytes, [bytes(len)]);
    }
}

fn a_blob_is_there_again_at_the_next_attempt() {
    let pool = quiet().workers(1).retries(Retries::times(1).on_failure(true)).build();
    let pool = pool.expect("a pool");
    let back = pool.submit(turn(vec![bytes(40_000)], How::FailAtFirst)).result();
    assert_eq!(back.expect("an output").bytes, [bytes(40_000)]);
}

fn a_blob_that_a_task_writes_as_json_itself_is_a_sequence() {
    let pool = pool(1);
    let back = pool.submit(turn(vec![bytes(40_000)], How::WriteToo)).result().expect("an output");
    let json = serde_json::to_string(&[bytes(40_000)]).expect("JSON");
    assert_eq!((back.bytes, back.written), (vec![bytes(40_000)], Some(json.len())));
}

fn other_executors_hand_blobs_over_as_they_are() {
    let task = || turn(vec![bytes(40_000)], How::Back);
    assert_eq!(
        Sequential::new().submit(task()).result().expect("an output").bytes,
        [bytes(40_000)]
    );
    assert_eq!(
        ThreadPool::new(1).submit(task()).result().expect("an output").bytes,
        [bytes(40_000)]
    );
}
