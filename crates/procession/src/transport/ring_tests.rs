//! One thread on both sides of a ring. What several do is `tests/models`.

use std::sync::atomic::{AtomicU64, Ordering};

use procession_os::shared::SharedBytes;

use super::ring::*;

/// A ring in this process's own memory.
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
fn records_of_every_length_go_round_and_round() {
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
fn a_full_ring_takes_no_more_until_it_was_read() {
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
fn what_cannot_be_is_told_and_never_followed() {
    with_ring(256, |ring| {
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        let mut records = Records::default();
        ring.tail.store(1 << 40, Ordering::Release);
        assert_eq!(reader.read(ring, &mut records), Err(Garbled));
        // A record that claims to be longer than what there is.
        ring.bytes.subslice(0, 4).expect("within").copy_from(&u32::MAX.to_le_bytes());
        ring.tail.store(64, Ordering::Release);
        assert_eq!(reader.read(ring, &mut records), Ok(true));
        assert_eq!(records.next().err(), Some(Garbled));
        // Somebody else moved what only the reader moves.
        ring.head.store(8, Ordering::Release);
        assert_eq!(reader.read(ring, &mut records), Err(Garbled));
        ring.head.store(0, Ordering::Release);
        // A reader that claims to have read what was never written.
        ring.head.store(1 << 40, Ordering::Release);
        assert_eq!(writer.write(ring, 1, &[&[0; 200]]), Ok(true), "it has not looked yet");
        assert_eq!(writer.write(ring, 1, &[&[0; 200]]), Err(Garbled));
        assert_eq!(writer.write(ring, 1, &[&[0; 200]]), Err(Garbled), "still");
    });
}
