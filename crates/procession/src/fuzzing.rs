//! What a worker can send, from any bytes: the targets of `fuzz/`, one function each. None of them may panic, read out
//! of bounds, or allocate more than its input justifies.
//!
//! `cargo test` runs each with the inputs that are kept in `fuzz/corpus`, and with some thousand changed
//! ones. `PROCESSION_FUZZ_INPUTS=1000000 cargo test -p procession --release --lib fuzzing` runs more.
//! `fuzz/README.md` says how libFuzzer is run.

use procession_os::crash;
use procession_os::shared::SharedMemory;

use crate::blob::Blob;
use crate::codec::{self, Encoding};
use crate::error::Backtrace;
use crate::transport::fuzzing::memory;
pub use crate::transport::fuzzing::{attachment, call, claim, handshake, reply, ring, segments};

/// A target: its name in `fuzz/fuzz_targets` and `fuzz/corpus`, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 11] = [
    ("ring", ring),
    ("reply", reply),
    ("call", call),
    ("handshake", handshake),
    ("claim", claim),
    ("attachment", attachment),
    ("crash", crash_record),
    ("values", values),
    ("segments", segments),
    ("scheduler", scheduler),
    ("traced", traced),
];

thread_local! {
    static CRASH: SharedMemory = memory(crash::SIZE);
}

/// Events and claims that no worker can cause, in the scheduler.
pub fn scheduler(data: &[u8]) {
    crate::scheduler::nonsense::run(data);
}

/// Records of spans and events, one a line after the digit of a task, for a subscriber that looks at all of them.
pub fn traced(data: &[u8]) {
    #[cfg(feature = "tracing")]
    crate::process_pool::traced_from(data);
    #[cfg(not(feature = "tracing"))]
    let _ = data;
}

/// The record of a crash.
pub fn crash_record(data: &[u8]) {
    CRASH.with(|memory| {
        let mut record = vec![0; crash::SIZE];
        let len = data.len().min(crash::SIZE);
        record[..len].copy_from_slice(&data[..len]);
        memory.bytes(0, crash::SIZE).copy_from(&record);
        if let Some(record) = crash::read(memory, 0) {
            let backtrace = Backtrace::from_record(&record);
            let _ = backtrace.map(|backtrace| backtrace.to_string());
            let _ = record.refused_call.map(crate::sandbox::violation);
        }
    });
}

/// Values in both encodings.
pub fn values(data: &[u8]) {
    for encoding in [Encoding::Json, Encoding::Binary] {
        let blobs = || vec![Blob::from(vec![7; 300])];
        let _ = codec::decode_in::<Vec<Option<(String, f64, Blob)>>>(encoding, data, blobs());
        let _ = codec::decode_in::<std::collections::BTreeMap<String, Vec<u64>>>(
            encoding,
            data,
            blobs(),
        );
        let _ = codec::decode_in::<Result<char, [i128; 2]>>(encoding, data, Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use fastrand::Rng;

    use super::*;
    /// Inputs of each target, unless `PROCESSION_FUZZ_INPUTS` is set.
    const INPUTS: usize = 3_000;

    /// The kept inputs of a target.
    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let Ok(files) = fs::read_dir(dir) else { return Vec::new() };
        let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
        paths.sort();
        paths.into_iter().map(|path| fs::read(path).expect("an input")).collect()
    }

    /// Changes an input at some places.
    fn change(rng: &mut Rng, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        for _ in 0..rng.usize(1..5) {
            let at = rng.usize(0..=input.len());
            match rng.u8(0..6) {
                0 => input.truncate(at),
                1 => input.insert(at, rng.u8(..)),
                2 => input.extend_from_slice(&rng.u64(..).to_le_bytes()),
                3 if at < input.len() => drop(input.remove(at)),
                4 => {
                    let other = &corpus[rng.usize(0..corpus.len())];
                    let from = rng.usize(0..=other.len());
                    input.splice(at..at, other[from..].iter().copied().take(64));
                }
                _ if at < input.len() => {
                    let odd = [0, 1, 0x7f, 0x80, 0xff, rng.u8(..), input[at] ^ (1 << rng.u8(0..8))];
                    input[at] = odd[rng.usize(0..odd.len())];
                }
                _ => {}
            }
        }
        input.truncate(4_096);
    }

    #[test]
    fn no_target_panics_with_the_kept_inputs_or_with_changed_ones() {
        let number = std::env::var("PROCESSION_FUZZ_INPUTS").ok();
        let number = number.and_then(|number| number.parse().ok()).unwrap_or(INPUTS);
        for (name, target) in TARGETS {
            let corpus = corpus(name);
            assert!(!corpus.is_empty(), "{name} has no inputs in fuzz/corpus");
            corpus.iter().for_each(|input| target(input));
            let mut rng = Rng::with_seed(7);
            for n in 0..number {
                let mut input = corpus[rng.usize(0..corpus.len())].clone();
                change(&mut rng, &mut input, &corpus);
                let ran = std::panic::catch_unwind(|| target(&input));
                assert!(ran.is_ok(), "{name}, input {n}: {input:?}");
            }
        }
    }
}
