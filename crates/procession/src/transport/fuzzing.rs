//! The targets of `fuzz/` that read records, claims, messages and segments. `crate::fuzzing` lists all targets.

#![cfg_attr(
    not(feature = "fuzzing"),
    allow(unreachable_pub, reason = "then it is for tests alone")
)]

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

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
use crate::codec;

pub(crate) fn memory(len: usize) -> SharedMemory {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(len as u64).expect("a length");
    SharedMemory::map(&file, len).expect("a mapping")
}

thread_local! {
    static RING: SharedMemory = memory(64 + RING_LEN);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::socket::Received;

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
}
