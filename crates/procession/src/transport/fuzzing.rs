//! The targets of `fuzz/`, one function each: they read arbitrary bytes as what a worker has sent. None of them
//! may panic, read out of bounds, or allocate more than its input justifies.
//!
//! `cargo test` runs each with the inputs that are kept in `fuzz/corpus`, and with some thousand changed
//! ones. `PROCESSION_FUZZ_INPUTS=1000000 cargo test -p procession --release --lib fuzzing` runs more.
//! `fuzz/README.md` says how libFuzzer is run.

#![cfg_attr(
    not(feature = "fuzzing"),
    allow(unreachable_pub, reason = "then it is for tests alone")
)]

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use procession_os::crash;
use procession_os::shared::SharedMemory;

use super::attachment::{Assembly, Patience};
use super::call::Call;
use super::claim::Claim;
use super::handshake::{HandshakeMessage, Invitation, Marking};
use super::reply::{Reply, split};
use super::ring::{Reader, Records, Ring};
use super::segments::{Direction, MOST, SegmentItem, SegmentReader};
use super::shared_region::SharedRegion;
use super::socket::{LONGEST, Sent, Socket};
use crate::blob::Blob;
use crate::codec::{self, Encoding};
use crate::error::Backtrace;

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

fn memory(len: usize) -> SharedMemory {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(len as u64).expect("a length");
    SharedMemory::map(&file, len).expect("a mapping")
}

thread_local! {
    static RING: SharedMemory = memory(64 + RING_LEN);
    static CRASH: SharedMemory = memory(crash::SIZE);
    static REGION: Arc<SharedRegion> = Arc::new(SharedRegion::create(1).expect("memory").0);
    /// Or an empty file where there are no segments.
    static SEGMENT: File = procession_os::segment::create(1 << 16, b"in a segment")
        .map_or_else(|_| tempfile::tempfile().expect("a file"), |(_, file)| file.into());
    /// What may come as a segment: two that are, and some that are not. Others have no file.
    static FILES: Vec<File> = files();
    static SOCKETS: (Socket, Socket) = {
        let (ours, theirs) = Socket::pair().expect("sockets");
        (ours, Socket::of(theirs.as_fd()).expect("a descriptor"))
    };
}

const RING_LEN: usize = 1024;

fn files() -> Vec<File> {
    let segment = |len, bytes| procession_os::segment::create(len, bytes).map(|(_, file)| file);
    let segments = [segment(1 << 16, &b"in a segment"[..]), segment(1 << 17, &b"another"[..])];
    let mut files: Vec<File> = segments.into_iter().flatten().map(File::from).collect();
    let sealed = procession_os::sealed::create(&[7; 1_000]).map(File::from);
    files.extend(sealed);
    files.extend(File::open("/dev/null"));
    files.extend(tempfile::tempfile());
    files
}

fn number<const N: usize>(data: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = data.split_at(data.len().min(N));
    *data = rest;
    let mut number = [0; N];
    number[..taken.len()].copy_from_slice(taken);
    number
}

/// A position of the writer, then the content of the ring; and so once more.
pub fn ring(mut data: &[u8]) {
    RING.with(|memory| {
        let bytes = memory.bytes(64, RING_LEN);
        let (tail, head) = (memory.word64(0), memory.word64(8));
        // No input sees what an earlier one left.
        bytes.copy_from(&[0; RING_LEN]);
        head.store(0, Ordering::SeqCst);
        let (mut reader, mut records) = (Reader::default(), Records::default());
        while !data.is_empty() {
            tail.store(u64::from_le_bytes(number(&mut data)), Ordering::SeqCst);
            let content: [u8; 128] = number(&mut data);
            bytes.subslice(0, content.len()).expect("within").copy_from(&content);
            let ring = Ring { tail, head, bytes };
            let Ok(_) = reader.read(&ring, &mut records) else { return };
            // After a record that is malformed nothing more is read: the worker is killed.
            while let Some(record) = match records.next() {
                Ok(record) => record,
                Err(_) => return,
            } {
                assert!(records.bytes(record).len() <= RING_LEN);
                let _ = split(records.bytes(record));
            }
        }
    });
}

/// A reply, and its output as values of some types.
pub fn reply(data: &[u8]) {
    let Ok(reply) = Reply::parse(data) else { return };
    reply.blobs.replace(vec![Blob::from(vec![7; 300])]);
    let _ = reply.result::<serde_json::Value>(codec::decode_in);
    let _ = reply.result::<Vec<(String, Option<u64>)>>(codec::decode_in);
    let _ = reply.result::<Blob>(codec::decode_in);
}

/// The record of a call, as a worker reads it.
pub fn call(data: &[u8]) {
    if let Some((_, parts)) = Call::split(data) {
        let texts = parts.texts(parts.text).map(<[u8]>::len).sum::<usize>();
        assert!(texts <= data.len());
    }
}

/// A message of the handshake, and what a worker finds in its environment.
pub fn handshake(data: &[u8]) {
    let message = serde_json::from_slice::<HandshakeMessage>(data);
    if let Ok(HandshakeMessage::CannotServe(reason)) = message {
        assert!(HandshakeMessage::reason(&reason).len() <= LONGEST);
    }
    let _ = serde_json::from_slice::<Invitation>(data);
    let _ = std::str::from_utf8(data).map(Marking::parse);
}

/// Words that a worker writes into a claim, and what the coordinator makes of them.
pub fn claim(mut data: &[u8]) {
    RING.with(|memory| {
        let (state, ended, begun_at) = (memory.word64(0), memory.word32(8), memory.word64(16));
        let claim = Claim { state, ended, begun_at, stop: memory.word32(24) };
        memory.bytes(0, 32).copy_from(&[0; 32]);
        while !data.is_empty() {
            state.store(u64::from_le_bytes(number(&mut data)), Ordering::SeqCst);
            ended.store(u32::from_le_bytes(number(&mut data)), Ordering::SeqCst);
            begun_at.store(u64::from_le_bytes(number(&mut data)), Ordering::SeqCst);
            let now = u64::from_le_bytes(number(&mut data));
            let progress = claim.progress(now);
            assert!(progress.runs_for.is_none_or(|for_| for_ <= Duration::from_nanos(now)));
            assert_eq!(claim.revoke(), progress.begun);
            claim.publish(7);
            assert_eq!(claim.progress(now).begun, 0);
        }
    });
}

/// Messages of an attachment, each after its length, with as many descriptors as its first byte says: of
/// a segment if its highest bit is set. With the next bit, the message is the appendix of a record.
pub fn attachment(mut data: &[u8]) {
    SOCKETS.with(|(ours, theirs)| {
        let Ok(null) = File::open("/dev/null") else { return };
        let (mut sent, mut appendices) = (0, Vec::new());
        while !data.is_empty() && sent < 8 {
            let [fds, len]: [u8; 2] = number(&mut data);
            let (message, rest) = data.split_at(data.len().min(usize::from(len)));
            data = rest;
            if fds & 0x40 != 0 {
                appendices.push(message);
                continue;
            }
            let file = SEGMENT.with(|file| (fds >= 0x80).then(|| file.try_clone().ok()).flatten());
            let fds = vec![file.as_ref().unwrap_or(&null).as_fd(); usize::from(fds % 4)];
            if theirs.send(message, &fds) != Sent::Yes {
                break;
            }
            sent += 1;
        }
        // No input sees the slots of an earlier one.
        let region = REGION.with(Arc::clone);
        let segments = SegmentReader::new(region, Direction::ToCoordinator);
        let (mut assembly, mut patience) = (Assembly::with(segments), Patience::none());
        appendices.resize(appendices.len().max(sent), &[]);
        for appendix in appendices {
            if let Ok(mut whole) = assembly.next(appendix, ours, &mut patience) {
                let _ = whole.text(b"").len();
                let _ = whole.take_blobs().len();
            }
        }
        // The next input must not see messages of this one, either. An empty message looks like the end of the other
        // side and stays in the socket, and others may be behind it.
        while ours.discard().is_some() {}
    });
}

/// Items in segments, with files that are segments and files that are not: the word of each item, and what its
/// file is.
pub fn segments(mut data: &[u8]) {
    /// Where the writer says that it has given a segment up, and the flag of an item whose file comes with it.
    const GIVES_UP: u8 = 0x80;
    let region = REGION.with(Arc::clone);
    let reader = SegmentReader::new(region, Direction::ToCoordinator);
    for _ in 0..32 {
        if data.is_empty() {
            break;
        }
        let ([what], word): ([u8; 1], _) =
            (number(&mut data), u64::from_le_bytes(number(&mut data)));
        let Some(item) = SegmentItem::from_word(word) else { continue };
        let file = FILES.with(|files| files.get(usize::from(what & 7))?.try_clone().ok());
        match reader.take(item, file.map(Into::into)) {
            Ok(bytes) => assert_eq!(bytes.len(), item.len as usize),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        if what & GIVES_UP != 0 {
            reader.drop_given_up();
        }
        // Else the record was not read yet.
        if what & 0x40 != 0 {
            reader.return_copied();
        }
        assert!(reader.number() <= MOST);
    }
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
    let _ = super::traced::TraceRecord::parse(data);
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
    use super::*;
    use std::fs;
    use std::path::Path;

    use fastrand::Rng;

    use crate::transport::socket::Received;

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

    /// An empty message looks like the end of the other side, and is not taken out of the socket by a reader.
    #[test]
    fn no_message_of_an_attachment_is_left_to_the_next_input() {
        for input in [&[0, 0][..], &[0, 0, 0, 1, 7], &[3, 0, 3, 1, 7, 0, 0], &[0x40, 0, 3, 0]] {
            attachment(input);
            SOCKETS.with(|(ours, _)| {
                let left = ours.receive();
                assert!(matches!(left, Received::Nothing), "{input:?}: {left:?}");
            });
        }
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
