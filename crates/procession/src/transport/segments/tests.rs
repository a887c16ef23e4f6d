//! Tests of segments, from a writer to a reader, and of what a worker could say about them.

use std::io;
use std::iter;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::*;
use crate::received_bytes::ReceivedBytes;
use procession_os::sealed;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Both sides of one direction. `None` where there are no segments.
fn sides(direction: Direction, most: u64) -> Option<(SegmentWriter, SegmentReader)> {
    let (region, file) = SharedRegion::create(1).expect("memory");
    let theirs = SharedRegion::open(file).expect("the same memory");
    let writer = SegmentWriter::new(Arc::new(region), direction, most);
    sealed::is_available().then(|| (writer, SegmentReader::new(Arc::new(theirs), direction)))
}

/// Sends one item.
fn pass(writer: &mut SegmentWriter, reader: &SegmentReader, bytes: &[u8]) -> Option<ReceivedBytes> {
    let (item, new) = writer.place(bytes)?;
    assert_eq!(item.is_new, new.is_some());
    assert_eq!(SegmentItem::from_word(item.to_word()), Some(item));
    let file = new.as_ref().map(|new| new.file.try_clone().expect("a descriptor"));
    writer.settle(true, new.into_iter());
    let received = reader.take(item, file).expect("an item");
    assert!(*received == *bytes, "{} bytes", bytes.len());
    Some(received)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[test]
fn a_segment_is_used_again_when_its_item_was_returned() {
    for direction in [Direction::ToWorker, Direction::ToCoordinator] {
        let Some((mut writer, reader)) = sides(direction, MOST_BYTES) else { return };
        for len in [1, 100, 64 * KIB, 30 * KIB, 1].into_iter().cycle().take(50) {
            drop(pass(&mut writer, &reader, &bytes(len)).expect("a segment"));
            reader.return_copied();
        }
        assert_eq!((writer.number(), reader.number()), (1, 1));
        let longer = pass(&mut writer, &reader, &bytes(MIB + 1)).expect("a longer one");
        assert_eq!(reader.number(), 2);
        drop(longer);
    }
}

#[test]
fn what_was_handed_over_does_not_change() {
    let Some((mut writer, reader)) = sides(Direction::ToWorker, MOST_BYTES) else { return };
    let kept: Vec<_> = (0..MOST)
        .map(|n| pass(&mut writer, &reader, &bytes(1_000 + n)).expect("a free slot"))
        .collect();
    assert!(writer.place(b"one more").is_none(), "all are in use");
    for (n, kept) in kept.iter().enumerate() {
        assert!(**kept == bytes(1_000 + n), "item {n}");
    }
    drop(kept);
    assert!(writer.place(b"one more").is_some());
}

#[test]
fn the_coordinator_has_a_copy_and_the_slot_is_taken_until_the_record_was_read() {
    let Some((mut writer, reader)) = sides(Direction::ToCoordinator, MOST_BYTES) else { return };
    let first = pass(&mut writer, &reader, b"first").expect("a segment");
    let second = pass(&mut writer, &reader, b"second").expect("a segment");
    assert_eq!(reader.number(), 2, "the first one is not free yet");
    assert!(matches!((&first, &second), (ReceivedBytes::Own(_), ReceivedBytes::Own(_))));
    reader.return_copied();
    pass(&mut writer, &reader, b"third").expect("a segment");
    assert_eq!((&*first, &*second), (&b"first"[..], &b"second"[..]));
    assert_eq!(writer.number(), 2);
}

#[test]
fn segments_are_bounded_in_all_and_short_ones_make_room() {
    let Some((mut writer, reader)) = sides(Direction::ToWorker, MIB as u64) else { return };
    assert!(writer.place(&bytes(MIB + 1)).is_none());
    let held: Vec<_> = iter::from_fn(|| pass(&mut writer, &reader, &bytes(200 * KIB))).collect();
    assert_eq!(held.len(), 4, "256 KiB each");
    assert!(writer.place(b"x").is_none());
    drop(held);
    drop(pass(&mut writer, &reader, &bytes(MIB)).expect("instead of all others"));
    reader.drop_given_up();
    assert_eq!((writer.number(), reader.number()), (1, 1));
    assert!(writer.place(b"").is_none());
}

#[test]
fn one_record_makes_the_coordinator_copy_no_more_than_the_segments_may_hold() {
    let (region, file) = SharedRegion::create(1).expect("memory");
    let theirs = Arc::new(SharedRegion::open(file).expect("the same memory"));
    let reader = SegmentReader::new(Arc::new(region), Direction::ToCoordinator);
    if !sealed::is_available() {
        return;
    }
    let len = 32 * MIB;
    let (_memory, file) = procession_os::segment::create(len, b"x").expect("a segment");
    let taken = (0..MOST as u8).take_while(|slot| {
        // One that is given up makes room for the next, says the worker.
        let words = theirs.slot_words(Direction::ToCoordinator, usize::from(*slot));
        words.dropped.store(dropped(1), Ordering::Release);
        let item = SegmentItem { slot: *slot, generation: 1, len: len as u32, is_new: true };
        reader.take(item, Some(file.try_clone().expect("a descriptor"))).is_ok()
    });
    assert_eq!(taken.count() * len, MOST_BYTES as usize);
}

#[test]
fn what_is_idle_is_given_back_on_both_sides() {
    let Some((mut writer, reader)) = sides(Direction::ToWorker, MOST_BYTES) else { return };
    let held = pass(&mut writer, &reader, b"held").expect("a segment");
    drop(pass(&mut writer, &reader, b"not held").expect("a segment"));
    writer.drop_idle(Instant::now());
    reader.drop_given_up();
    assert_eq!((writer.number(), reader.number()), (2, 2), "not idle yet");
    writer.drop_idle(Instant::now() + IDLE);
    reader.drop_given_up();
    assert_eq!((writer.number(), reader.number()), (1, 1));
    assert_eq!(&*held, b"held");
    drop(held);
    writer.drop_idle(Instant::now() + IDLE);
    reader.drop_given_up();
    assert_eq!((writer.number(), reader.number()), (0, 0));
    pass(&mut writer, &reader, b"again").expect("a segment");
}

#[test]
fn items_that_were_not_sent_or_not_received_leave_their_slots_free() {
    let Some((mut writer, reader)) = sides(Direction::ToCoordinator, MOST_BYTES) else { return };
    for _ in 0..20 {
        let (item, new) = writer.place(b"not sent").expect("a segment");
        assert!(item.is_new);
        writer.settle(false, new.into_iter());
    }
    assert_eq!(writer.number(), 1);
    for _ in 0..20 {
        // Its message came without descriptors.
        let (item, new) = writer.place(b"not received").expect("a segment");
        assert!(item.is_new, "the reader has none");
        writer.settle(true, new.into_iter());
        reader.refuse(item).expect("sound");
    }
    drop(pass(&mut writer, &reader, b"received").expect("a segment"));
    reader.return_copied();
    let (item, new) = writer.place(b"not received").expect("a segment");
    assert!(!item.is_new);
    writer.settle(true, new.into_iter());
    reader.refuse(item).expect("sound");
    drop(pass(&mut writer, &reader, b"received").expect("the same segment"));
    assert_eq!((writer.number(), reader.number()), (1, 1));
}

#[test]
fn lies_are_garbage() {
    let Some((mut writer, reader)) = sides(Direction::ToCoordinator, MOST_BYTES) else { return };
    let (item, new) = writer.place(&bytes(100)).expect("a segment");
    let new = new.expect("a new one");
    let file = || Some(new.file.try_clone().expect("a descriptor"));
    let refused = |item, file| {
        let error = reader.take(item, file).map(|_| ()).expect_err("a lie");
        error.kind() == io::ErrorKind::InvalidData
    };
    assert!(refused(SegmentItem { slot: MOST as u8, ..item }, file()), "no such slot");
    assert!(refused(SegmentItem { generation: 7, ..item }, file()), "not the next generation");
    for len in [0, u32::MAX] {
        assert!(refused(SegmentItem { len, ..item }, file()), "{len} bytes");
    }
    assert!(refused(SegmentItem { is_new: false, slot: 1, ..item }, None), "a slot without one");
    let in_slot = |slot| SegmentItem { slot, ..item };
    let sealed = sealed::create(&bytes(100)).expect("a file");
    assert!(refused(in_slot(2), Some(sealed)), "not a segment");
    let long = procession_os::segment::create(2 * LONGEST, b"x").expect("a segment").1;
    assert!(refused(in_slot(3), Some(long)), "longer than allowed");
    let len = SHORTEST as u32 + 1;
    assert!(refused(SegmentItem { len, ..in_slot(4) }, file()), "longer than its segment");
    reader.take(item, file()).expect("the truth");
    let next = SegmentItem { generation: item.generation + 1, is_new: false, ..item };
    assert!(refused(next, None), "before the record was read");
    reader.return_copied();
    assert!(refused(item, None), "the same generation again");
    reader.take(next, None).expect("the truth");
    reader.return_copied();
    // Together they are too long.
    let half = procession_os::segment::create(LONGEST, b"x").expect("a segment").1;
    assert!(refused(in_slot(5), Some(half)));
}

/// What all segments may take, in bytes.
const LONGEST: usize = MOST_BYTES as usize;

#[test]
fn segments_survive_that_the_generations_begin_anew() {
    for direction in [Direction::ToWorker, Direction::ToCoordinator] {
        for given_up_at in [None, Some(GENERATIONS), Some(0), Some(2)] {
            let Some((mut writer, reader)) = sides(direction, MOST_BYTES) else { return };
            // A segment that was given up when the slot had this generation the last time.
            if let Some(generation) = given_up_at {
                writer.set_generation(generation.wrapping_sub(1) & GENERATIONS);
                reader.set_generation(generation.wrapping_sub(1) & GENERATIONS);
                drop(pass(&mut writer, &reader, b"given up").expect("a segment"));
                reader.return_copied();
                writer.drop_idle(Instant::now() + IDLE);
                reader.drop_given_up();
                assert_eq!((writer.number(), reader.number()), (0, 0));
            }
            writer.set_generation(GENERATIONS - 3);
            reader.set_generation(GENERATIONS - 3);
            for n in 0..8 {
                drop(pass(&mut writer, &reader, &bytes(100 + n)).expect("a segment"));
                reader.return_copied();
                reader.drop_given_up();
                assert_eq!((writer.number(), reader.number()), (1, 1), "item {n}");
            }
        }
    }
}

#[test]
fn false_words_cost_nobody_but_the_worker() {
    let number = |n: u32| n.wrapping_mul(0x9e37_79b9);
    for direction in [Direction::ToWorker, Direction::ToCoordinator] {
        let Some((mut writer, reader)) = sides(direction, MIB as u64) else { return };
        let region = writer.region().expect("it has segments");
        let (mut received, mut refused, mut last) = (0, 0, 0);
        for n in 0..2_000 {
            for slot in 0..MOST {
                let words = region.slot_words(direction, slot);
                let word = if n % 2 == 0 { number(n) } else { returned(n % 30, n % 3 == 0) };
                words.returned.store(word, std::sync::atomic::Ordering::SeqCst);
            }
            let sent = bytes(100 + (number(n) as usize) % (300 * KIB));
            if let Some((item, new)) = writer.place(&sent) {
                let file = new.as_ref().map(|new| new.file.try_clone().expect("a descriptor"));
                let is_sent = n % 5 != 0;
                last = item.generation;
                writer.settle(is_sent, new.into_iter());
                // What was sent, or garbage.
                match is_sent.then(|| reader.take(item, file)) {
                    Some(Ok(item)) if *item == *sent => received += 1,
                    Some(Ok(_)) => panic!("item {n} is not what was sent"),
                    Some(Err(error)) => {
                        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
                        refused += 1;
                    }
                    None => {}
                }
            }
            assert!(writer.len() <= MIB && reader.len() <= LONGEST, "after item {n}");
            reader.return_copied();
            for slot in (0..MOST).filter(|_| n % 4 == 0) {
                let words = region.slot_words(direction, slot);
                words.dropped.store(dropped(last), std::sync::atomic::Ordering::SeqCst);
            }
            reader.drop_given_up();
            writer.drop_idle(Instant::now() + IDLE * (n % 2));
        }
        assert!(received > 0 && refused > 0, "{received} received, {refused} refused");
    }
}
