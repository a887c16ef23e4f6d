//! Each record is delivered once, in order and whole: also if the ring is full or wraps, if several
//! threads write, and if the writer dies.

use std::sync::{Arc, Mutex, PoisonError};

use super::event_count::{AdaptiveSpin, EventCount};
use super::explore;
use super::ring::{Garbled, Reader, Records, Ring, Writer};
use super::sync::{
    AtomicBool, AtomicU32, AtomicU64, Lock, Memory, Ordering, chance, spawn, spawn_mortal,
};

/// The ring of replies from a worker to the coordinator, with the words beside it.
pub(crate) struct Shared {
    pub tail: AtomicU64,
    pub head: AtomicU64,
    pub memory: Memory,
    pub event_counts: [[AtomicU32; 3]; 2],
    pub is_idle: AtomicBool,
    pub has_ended: AtomicBool,
    pub longest: Option<std::time::Duration>,
    pub busy: AtomicU64,
}

impl Shared {
    pub(crate) fn new(len: usize, threads: u64) -> Self {
        Self {
            tail: AtomicU64::new(0),
            head: AtomicU64::new(0),
            memory: Memory::new(len),
            event_counts: Default::default(),
            is_idle: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            longest: None,
            busy: AtomicU64::new(threads),
        }
    }

    pub(crate) fn ring(&self) -> Ring<'_> {
        Ring { tail: &self.tail, head: &self.head, bytes: self.memory.all() }
    }

    fn event_count(&self, which: usize) -> EventCount<'_> {
        let [count, sleepers, dozers] = &self.event_counts[which];
        EventCount { count, sleepers, dozers, longest: self.longest }
    }

    pub(crate) fn reply_events(&self) -> EventCount<'_> {
        self.event_count(0)
    }

    pub(crate) fn space_events(&self) -> EventCount<'_> {
        self.event_count(1)
    }

    /// Like the watch thread, at the worker's end.
    pub(crate) fn note_end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.reply_events().notify_always();
    }

    /// Like a worker's thread, with a reply.
    fn send(&self, outbox: &Lock<Writer>, record: &[u8], written: impl FnOnce()) {
        outbox.with(|writer| {
            let ring = self.ring();
            let (first, second) = record.split_at(record.len() / 2);
            let parts = [first, second];
            while !writer.write(&ring, record[0], &parts).expect("the reader is sound") {
                self.space_events().sleep_unless(|| writer.fits(&ring, &parts));
            }
            written();
        });
        match self.ring().is_filling() {
            true => self.reply_events().notify(),
            false => self.reply_events().notify_if_asleep(),
        }
    }

    /// Like a worker's thread, without further calls.
    fn done(&self) {
        if self.busy.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.is_idle.store(true, Ordering::SeqCst);
            self.reply_events().notify_dozing();
        }
    }

    /// Like the coordinator's handler, until it has received `most` records or the worker has
    /// ended.
    pub(crate) fn receive(&self, most: usize) -> Result<Vec<Vec<u8>>, Garbled> {
        let (mut reader, mut records) = (Reader::default(), Records::default());
        let spin = AdaptiveSpin::default();
        let mut received = Vec::new();
        while received.len() < most {
            let has_ended = self.has_ended.load(Ordering::SeqCst);
            let mut has_read = false;
            while reader.read(&self.ring(), &mut records)? {
                has_read = true;
                self.space_events().notify();
                while let Some(record) = records.next()? {
                    received.push(records.bytes(record).to_vec());
                }
                if !has_ended {
                    break;
                }
            }
            if has_ended || received.len() >= most {
                break;
            }
            let ring = self.ring();
            let ended = || self.has_ended.load(Ordering::SeqCst);
            if has_read && chance(2) == 0 {
                let is_urgent =
                    || self.is_idle.load(Ordering::SeqCst) || ring.is_filling() || ended();
                self.reply_events().doze_unless(is_urgent);
            } else if !has_read || chance(2) == 0 {
                self.reply_events().wait_unless(&spin, || ring.has_unread() || ended());
            }
        }
        Ok(received)
    }
}

/// A record: the thread, the number, and bytes that follow from both.
fn record(thread: u8, number: u8) -> Vec<u8> {
    let len = usize::from(number * 7 + thread * 3) % 30;
    let mut record = vec![thread, number];
    record.extend((0..len).map(|byte| byte as u8 ^ number ^ (thread << 4)));
    record
}

/// `threads` threads of a worker send `each` records each, through a ring of `len` bytes.
fn all_are_delivered(len: usize, threads: u8, each: u8) {
    explore(move || {
        let shared = Arc::new(Shared::new(len, u64::from(threads)));
        let outbox = Arc::new(Lock::new(Writer::default()));
        let write = |thread| {
            let (shared, outbox) = (Arc::clone(&shared), Arc::clone(&outbox));
            spawn(move || {
                for number in 0..each {
                    shared.send(&outbox, &record(thread, number), || {});
                }
                shared.done();
            })
        };
        let writers: Vec<_> = (0..threads).map(write).collect();
        let received = shared.receive(usize::from(threads * each)).expect("sound");
        writers.into_iter().for_each(|thread| thread.join());
        for thread in 0..threads {
            let of_it: Vec<_> = received.iter().filter(|bytes| bytes[0] == thread).collect();
            let sent: Vec<_> = (0..each).map(|number| record(thread, number)).collect();
            assert_eq!(of_it, sent.iter().collect::<Vec<_>>());
        }
        assert_eq!(received.len(), usize::from(threads * each));
    });
}

#[test]
fn a_full_ring_delivers_each_record_once_in_order_and_whole() {
    all_are_delivered(64, 1, 6);
    all_are_delivered(64, 3, 2);
}

#[test]
fn a_ring_with_room_delivers_each_record_once_in_order_and_whole() {
    all_are_delivered(4096, 1, 4);
    all_are_delivered(4096, 2, 2);
}

#[test]
fn records_published_before_the_writers_death_are_read_and_no_part_of_others() {
    for len in [64, 4096] {
        explore(move || {
            let shared = Arc::new(Shared::new(len, 1));
            let written = Arc::new(Mutex::new(0));
            let (writes, counts) = (Arc::clone(&shared), Arc::clone(&written));
            let steps = chance(120) as usize;
            let writer = spawn_mortal(steps, move || {
                let outbox = Lock::new(Writer::default());
                for number in 0..4 {
                    writes.send(&outbox, &record(0, number), || {
                        *counts.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                    });
                }
                writes.done();
            });
            let notes = Arc::clone(&shared);
            let watch = spawn(move || {
                writer.join();
                notes.note_end();
            });
            let received = shared.receive(usize::MAX).expect("sound");
            watch.join();
            let written = *written.lock().unwrap_or_else(PoisonError::into_inner);
            // The writer may have died after it published a record, and before it counted it.
            assert!((written..=written + 1).contains(&received.len()), "{written}");
            let sent: Vec<_> = (0..received.len()).map(|n| record(0, n as u8)).collect();
            assert_eq!(received, sent);
        });
    }
}
