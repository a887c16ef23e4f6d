//! Tests of a ring with one thread on both sides. Those with several threads are in `tests/models`.

use std::sync::atomic::{AtomicU64, Ordering};

use procession_os::shared::SharedBytes;

use super::ring::*;

/// Runs a test with a ring in private memory.
fn with_ring(len: usize, test: impl FnOnce(&Ring<'_>)) {
    let mut memory = vec![0; len];
    let (tail, head) = (AtomicU64::new(0), AtomicU64::new(0));
    let bytes = SharedBytes::of(&mut memory);
    test(&Ring { tail: &tail, head: &head, bytes });
}

fn read_all(reader: &mut Reader, ring: &Ring<'_>) -> Vec<Vec<u8>> {
    let mut records = Records::default();
    let _ = reader.read(ring, &mut records).expect("sound");
    let next = || records.next().expect("sound").map(|record| records.bytes(record).to_vec());
    std::iter::from_fn(next).collect()
}

#[test]
fn records_of_every_length_arrive_while_the_ring_wraps() {
    with_ring(256, |ring| {
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        for round in 0..2_000_usize {
            let len = round * 7 % 100;
            let text: Vec<u8> = (0..len).map(|n| (n + round) as u8).collect();
            let (first, second) = text.split_at(len / 3);
            assert_eq!(writer.write(ring, 1, &[first, second]), Ok(true));
            assert_eq!(read_all(&mut reader, ring), [text]);
        }
    });
}

#[test]
fn an_appendix_is_apart_from_the_record() {
    with_ring(256, |ring| {
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        let mut records = Records::default();
        for len in 0..20 {
            let parts = [&b"record"[..], &[7; 20][..len]];
            assert_eq!(writer.write_with(ring, 1, &parts, len), Ok(true));
            assert_eq!(writer.write(ring, 2, &parts), Ok(true));
            assert_eq!(reader.read(ring, &mut records), Ok(true));
            let with = records.next().expect("sound").expect("a record");
            assert_eq!((records.bytes(with), records.appendix(with)), (parts[0], parts[1]));
            let without = records.next().expect("sound").expect("a record");
            assert_eq!(
                (records.bytes(without).len(), records.appendix(without)),
                (6 + len, &b""[..])
            );
        }
        assert_eq!(writer.write_with(ring, 1, &[b"short"], 6), Ok(true));
        assert_eq!(reader.read(ring, &mut records), Ok(true));
        assert_eq!(records.next().err(), Some(Garbled), "longer than the record");
    });
}

#[test]
fn a_full_ring_takes_no_record_until_it_is_read() {
    with_ring(256, |ring| {
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        let fitted = (0..100).take_while(|_| writer.write(ring, 1, &[&[7; 24]]) == Ok(true));
        assert_eq!(fitted.count(), 8);
        assert_eq!(read_all(&mut reader, ring).len(), 8);
        assert_eq!(writer.write(ring, 1, &[&[7; 24]]), Ok(true));
        assert_eq!(writer.write(ring, 1, &[&[7; 300]]), Ok(false), "larger than the ring");
    });
}

#[test]
fn impossible_lengths_and_positions_are_errors() {
    with_ring(256, |ring| {
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        let mut records = Records::default();
        ring.tail.store(1 << 40, Ordering::Release);
        assert_eq!(reader.read(ring, &mut records), Err(Garbled));
        // A record that is longer than the ring.
        ring.bytes.subslice(0, 4).expect("within").copy_from(&u32::MAX.to_le_bytes());
        ring.tail.store(64, Ordering::Release);
        assert_eq!(reader.read(ring, &mut records), Ok(true));
        assert_eq!(records.next().err(), Some(Garbled));
        // `head` was moved by something other than the reader.
        ring.head.store(8, Ordering::Release);
        assert_eq!(reader.read(ring, &mut records), Err(Garbled));
        ring.head.store(0, Ordering::Release);
        // `head` is ahead of the writer.
        ring.head.store(1 << 40, Ordering::Release);
        assert_eq!(writer.write(ring, 1, &[&[0; 200]]), Ok(true), "`head` is not loaded yet");
        assert_eq!(writer.write(ring, 1, &[&[0; 200]]), Err(Garbled));
        assert_eq!(writer.write(ring, 1, &[&[0; 200]]), Err(Garbled), "again");
    });
}
