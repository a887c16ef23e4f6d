//! The attacks: a task that writes what no worker writes into the socket, the shared memory and the standard
//! streams of its own process.

#![allow(unsafe_code, reason = "an attacker uses what has no safe interface")]

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, ptr, thread};

use procession::{Blob, Context, Failure, Task};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};

use super::false_segments::{self, SegmentLie};
use super::lingering::{self, Lingering};
use super::processes::{die_traced, leave_behind, squat};
use super::tells;

use crate::vandals::{
    CALLER_EVENTS, REPLIES_TAIL, REPLY_EVENTS, read_tail, record_len, ring, write, write_record,
};

/// The attacks. Each is described by what the worker sends or does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Attack {
    /// A text in a file that is cut to nothing after it was announced.
    CutText,
    /// The same as a blob.
    CutBlob,
    /// A file of 1 TiB without a single page, with all seals.
    SparseTebibyte,
    /// A small sealed file that is announced as 2^45 bytes.
    Announced,
    /// A sealed file of no bytes.
    EmptyFile,
    /// The reading end of a pipe.
    Pipe,
    /// A file on a disk.
    DiskFile,
    /// A text that a thread goes on changing: the mapping was made before the seals.
    FlippingText,
    /// The same as a blob, with the seal that only forbids later mappings.
    FlippingBlob,
    /// A message of this many bytes of an attachment that would be longer.
    HalfMessage(usize),
    /// Messages with the most descriptors that there can be, and requests to take them in.
    Descriptors,
    /// Messages of the handshake, which is over.
    Handshake,
    /// Requests to take messages in, without end.
    Requests,
    /// Lines in the names of tasks of others, then its own.
    ForgedLines,
    /// Partial results of other tasks, then two of its own, the second of them malformed.
    ForgedPartials,
    /// Lines without end, by `say`.
    Lines,
    /// Lines without end, to the standard output.
    Prints,
    /// A process in a session of its own holds the socket, the memory and the pipes, and goes on writing.
    Daemon,
    /// The same, and it takes away what the worker prints.
    Thief,
    /// Delivers a blob. When the first file exists, tries to change it in each way that there is; notes in the
    /// second one which of them succeeded.
    ChangeDelivered { go: PathBuf, notes: PathBuf },
    /// Connects to each socket that appears in the temporary directory, and sends this number of bytes to it.
    /// Notes each in a file there.
    Squat { sends: usize },
    /// Says what is not true about segments.
    Segment(SegmentLie),
    /// A connection to this port whose close takes long, as a descriptor of a message.
    Lingering(Lingering, u16),
    /// Records of spans and events. Then it ends if it is to, with the records in the names of other tasks as well.
    Traced { records: Vec<String>, ends: bool },
    /// Events without end.
    TracedWithoutEnd,
    /// Partial results without end.
    EmitsWithoutEnd,
    /// The same, each with a blob of this length.
    EmitsBlobsWithoutEnd { bytes: usize },
    /// The same, each with 200 blobs of one byte, and with no value.
    EmitsShortBlobsWithoutEnd,
    /// Wakes those who wait for a reply, without one.
    Wakes,
    /// Another process traces the worker, or all of its threads, which then dies.
    TracedDeath { all: bool },
}

/// Makes the attack, and then does nothing any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hostile(pub Attack);

impl Task for Hostile {
    const NAME: &'static str = "hostile";
    type Output = Blob;

    fn run(self, context: &Context) -> Result<Blob, Failure> {
        let id = own_id(context);
        send_memory(&self.0, id)?;
        match self.0 {
            Attack::HalfMessage(bytes) => {
                let whole = message(HAS_TEXT, &[5 | INLINE], b"12345");
                let mut part: Vec<u8> = whole.into_iter().cycle().take(bytes).collect();
                if bytes > 2 {
                    part[2] = 200;
                }
                send(&part, &[]);
                publish(REPLY | HAS_ATTACHMENT, 0, "");
            }
            Attack::Descriptors => flood_with_descriptors(),
            Attack::Handshake => {
                let ready = r#"{"Ready":{"threads":64,"refused":null,"sandbox":{"layers":[]}}}"#;
                let hello = r#"{"Hello":{"protocol":8,"build":"","pid":1,"server":null}}"#;
                for replayed in [ready, hello, r#""Memory""#] {
                    send(replayed.as_bytes(), &[]);
                }
                publish(REPLY | HAS_ATTACHMENT, 0, "");
            }
            Attack::Requests => loop {
                publish_when_there_is_room(TAKE_IN, 0, "");
            },
            Attack::ForgedLines => {
                for other in (id.saturating_sub(20)..id).chain([id + 1, u64::MAX]) {
                    publish_when_there_is_room(SAID, other, "forged");
                }
                // Not by `say` and a return: the library does not know of the records before.
                publish_when_there_is_room(SAID, id, "honest");
                publish(REPLY, 0, &format!(r#"{{"id":{id},"status":"ok","data":[7],"run_us":1}}"#));
            }
            Attack::ForgedPartials => {
                for other in (id.saturating_sub(20)..id).chain([id + 1, u64::MAX]) {
                    publish_when_there_is_room(PARTIAL, other, FORGED);
                }
                publish_when_there_is_room(PARTIAL, id, "\u{12}\u{6}honest");
                publish_when_there_is_room(PARTIAL, id, "no value");
                publish(REPLY, 0, &format!(r#"{{"id":{id},"status":"ok","data":[7],"run_us":1}}"#));
            }
            Attack::Lines => loop {
                context.say("and another one");
            },
            Attack::Prints => loop {
                let _ = io::stdout().write_all(&b"and another one\n".repeat(1_000));
            },
            Attack::Daemon => leave_behind(false),
            Attack::Thief => leave_behind(true),
            Attack::ChangeDelivered { go, notes } => change_delivered(id, &go, &notes)?,
            Attack::Squat { sends } => squat(sends),
            Attack::Segment(lie) => false_segments::tell(lie, id),
            Attack::Lingering(way, port) => lingering::send_one(way, port, id)?,
            Attack::TracedDeath { all } => die_traced(all)?,
            attack => tells::make(&attack, id, context)?,
        }
        loop {
            ring(REPLY_EVENTS);
            ring(CALLER_EVENTS);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The attacks by what should be sealed memory.
fn send_memory(attack: &Attack, id: u64) -> io::Result<()> {
    match attack {
        Attack::CutText => {
            let file = memory(text(id).as_bytes());
            file.set_len(0)?;
            attach(Some(file.as_fd()), text(id).len() as u64, true);
        }
        Attack::CutBlob => {
            let file = memory(&[7; 5_000]);
            attach(Some(file.as_fd()), 5_000, false);
            file.set_len(0)?;
            publish_blob(id);
        }
        Attack::SparseTebibyte => {
            let file = memory(&[]);
            file.set_len(1 << 40)?;
            seal(&file, ALL);
            attach(Some(file.as_fd()), 1 << 40, true);
        }
        Attack::Announced => {
            let file = memory(text(id).as_bytes());
            seal(&file, ALL);
            attach(Some(file.as_fd()), 1 << 45, true);
        }
        Attack::EmptyFile => {
            let file = memory(&[]);
            seal(&file, ALL);
            attach(Some(file.as_fd()), 0, true);
        }
        Attack::Pipe => {
            let (reader, mut writer) = io::pipe()?;
            writer.write_all(text(id).as_bytes())?;
            attach(Some(reader.as_fd()), text(id).len() as u64, true);
        }
        Attack::DiskFile => {
            let mut file = tempfile::tempfile()?;
            file.write_all(text(id).as_bytes())?;
            attach(Some(file.as_fd()), text(id).len() as u64, true);
        }
        Attack::FlippingText => {
            let text = text(id);
            let file = memory(text.as_bytes());
            go_on_changing(&file, text.len(), text.find("harmless").unwrap_or_default());
            seal(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE);
            seal(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE);
            attach(Some(file.as_fd()), text.len() as u64, true);
        }
        Attack::FlippingBlob => {
            let file = memory(&[7; 5_000]);
            go_on_changing(&file, 5_000, 0);
            let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
            seal(&file, seals | SealFlags::SEAL);
            attach(Some(file.as_fd()), 5_000, false);
            publish_blob(id);
        }
        _ => {}
    }
    Ok(())
}

/// A reply that would be accepted, in the envelope of its task.
pub(super) fn text(id: u64) -> String {
    let padding = " ".repeat(2_000);
    format!(r#"{{"id":{id},"status":"ok","data":[7],"run_us":1{padding}}}"#)
}

/// A reply that takes its output from the first blob.
pub(super) fn publish_blob(id: u64) {
    let reply = format!(r#"{{"id":{id},"status":"ok","data":{{"$blob":0}},"run_us":1}}"#);
    publish(REPLY | HAS_ATTACHMENT, 0, &reply);
}

fn own_id(context: &Context) -> u64 {
    let shown = format!("{context:?}");
    let digits = shown.split_once("TaskId(").map(|(_, rest)| rest.split(')').next());
    digits.flatten().and_then(|id| id.parse().ok()).expect("an id")
}

const ALL: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

pub(super) fn memory(bytes: &[u8]) -> File {
    named_memory("hostile", bytes)
}

fn named_memory(name: &str, bytes: &[u8]) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create(name, flags).expect("a file"));
    file.write_all(bytes).expect("room");
    file
}

/// As far as the system permits.
pub(super) fn seal(file: &File, seals: SealFlags) {
    let _ = fcntl_add_seals(file, seals);
}

/// Delivers a blob, and then tries to change it.
fn change_delivered(id: u64, go: &Path, notes: &Path) -> io::Result<()> {
    const LEN: usize = 5_000;
    let mut file = memory(&[7; LEN]);
    // As an honest worker does: nothing else is accepted.
    seal(&file, ALL);
    attach(Some(file.as_fd()), LEN as u64, false);
    publish_blob(id);
    while !go.exists() {
        ring(REPLY_EVENTS);
        ring(CALLER_EVENTS);
        thread::sleep(Duration::from_millis(5));
    }
    let (read, both) = (libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE);
    let mut succeeded = Vec::new();
    for _ in 0..100 {
        // SAFETY: new mappings, which nothing else in this process uses.
        let (map, protect, punch) = unsafe {
            let fd = file.as_raw_fd();
            let map = |access| libc::mmap(ptr::null_mut(), LEN, access, libc::MAP_SHARED, fd, 0);
            let readable = map(read);
            let is_readable = readable != libc::MAP_FAILED;
            let protect = is_readable && libc::mprotect(readable, LEN, both) == 0;
            let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            (map(both) != libc::MAP_FAILED, protect, libc::fallocate(fd, hole, 0, 4_096) == 0)
        };
        // By its name in `/proc`, it is opened anew.
        let again =
            fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let tries = [
            ("pwrite", file.write_at(b"x", 0).is_ok()),
            ("write", file.rewind().is_ok() && file.write(b"x").is_ok()),
            ("cut", file.set_len(0).is_ok()),
            ("grow", file.set_len(1 << 20).is_ok()),
            ("unseal", fcntl_add_seals(&file, SealFlags::empty()).is_ok()),
            ("map", map),
            ("protect", protect),
            ("punch", punch),
            ("reopen", again.is_ok_and(|again| again.write_at(b"x", 0).is_ok())),
        ];
        succeeded.extend(tries.into_iter().filter(|(_, is_done)| *is_done).map(|(way, _)| way));
    }
    fs::write(notes.with_extension("part"), succeeded.join(" "))?;
    fs::rename(notes.with_extension("part"), notes)
}

/// Maps the file and changes one byte of it for ever.
pub(super) fn go_on_changing(file: &File, len: usize, at: usize) {
    // SAFETY: a new mapping of a file, which nothing else in this process uses.
    let start = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    assert_ne!(start, libc::MAP_FAILED);
    let address = start as usize + at;
    thread::spawn(move || {
        for byte in (0..=255).cycle() {
            // SAFETY: within the mapping, which is never unmapped.
            unsafe { ptr::write_volatile(address as *mut u8, byte) };
        }
    });
}

// The form of messages and records, see `src/transport.rs` and `src/transport/attachment.rs`.
pub(super) const REPLY: u8 = 2;
const SAID: u8 = 3;
pub(super) const PARTIAL: u8 = 8;
/// A text in the binary encoding.
const FORGED: &str = "\u{12}\u{6}forged";
pub(super) const TAKE_IN: u8 = 5;
pub(super) const HAS_ATTACHMENT: u8 = 0x80;
const IS_FIRST: u8 = 1;
const HAS_MORE: u8 = 2;
pub(super) const HAS_TEXT: u8 = 4;
pub(super) const INLINE: u64 = 1 << 63;

pub(super) fn message(flags: u8, lengths: &[u64], inline: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, IS_FIRST | flags, lengths.len() as u8];
    bytes.extend(lengths.iter().flat_map(|length| length.to_le_bytes()));
    bytes.extend_from_slice(inline);
    bytes
}

/// Sends one item as the text or the first blob, and for a text the record that needs it.
fn attach(fd: Option<BorrowedFd<'_>>, length: u64, is_text: bool) {
    let flags = if is_text { HAS_TEXT } else { 0 };
    send(&message(flags, &[length], &[]), fd.as_slice());
    if is_text {
        publish(REPLY | HAS_ATTACHMENT, 0, "");
    }
}

pub(super) fn publish(kind: u8, number: u64, text: &str) {
    let tail = read_tail();
    write_record(tail, kind, number, text);
    write(REPLIES_TAIL, &(tail + record_len(text)).to_le_bytes());
}

pub(super) fn publish_when_there_is_room(kind: u8, number: u64, text: &str) {
    const REPLIES_HEAD: u64 = 3 * 64;
    while read_tail() - crate::vandals::read(REPLIES_HEAD) > 100 * 1024 {
        ring(REPLY_EVENTS);
        thread::sleep(Duration::from_millis(1));
    }
    publish(kind, number, text);
}

/// The end of the socket pair that this worker has.
fn socket() -> OwnedFd {
    let invitation = env::var("PROCESSION_INVITATION").expect("an invitation");
    let invitation: serde_json::Value = serde_json::from_str(&invitation).expect("JSON");
    let identity = invitation["input"].as_u64().expect("a number");
    (3..1_000)
        // SAFETY: the descriptor is duplicated before anything else happens to it, if it is open.
        .filter_map(|fd| unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().ok())
        .find(|fd| fstat(fd).is_ok_and(|stat| stat.st_ino == identity))
        .expect("the socket")
}

pub(super) fn send(bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let socket = socket();
    let mut space = vec![std::mem::MaybeUninit::uninit(); 4_096];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(&socket, &[io::IoSlice::new(bytes)], &mut control, flags).is_ok()
}

/// The name of the memory in [`Attack::Descriptors`].
pub(crate) const FLOOD: &str = "hostile-flood";

/// The system allows 253 descriptors in a message.
fn flood_with_descriptors() {
    let file = named_memory(FLOOD, &[7; 2_000]);
    seal(&file, ALL);
    for _ in 0..1_000 {
        let is_sent = send(&message(HAS_MORE, &[2_000; 200], &[]), &[file.as_fd(); 200]);
        if !is_sent {
            publish_when_there_is_room(TAKE_IN, 0, "");
        }
    }
    publish(REPLY | HAS_ATTACHMENT, 0, "");
}
