//! The other side writes any values into the shared words. The coordinator gets an error or
//! continues. It does not panic, read out of bounds, loop or sleep for ever.

use std::sync::Arc;
use std::time::Duration;

use super::explore;
use super::ring::Writer;
use super::rings::Shared;
use super::sync::{Ordering, chance, let_timeouts_pass, spawn};

/// A value that may do harm.
fn word(shared: &Shared) -> u64 {
    let near = shared.tail.load(Ordering::SeqCst);
    match chance(7) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => near.wrapping_add(8),
        4 => near.wrapping_add(64),
        5 => near.wrapping_sub(8),
        _ => chance(u64::MAX),
    }
}

fn write_something(shared: &Shared) {
    let word = word(shared);
    let [count, sleepers, dozers] = &shared.event_counts[0];
    match chance(8) {
        0 | 1 => shared.tail.store(word, Ordering::SeqCst),
        2 => shared.head.store(word, Ordering::SeqCst),
        3 => {
            // So that an increment goes unnoticed.
            let before = count.load(Ordering::SeqCst);
            count.store(before.wrapping_sub(chance(3) as u32), Ordering::SeqCst);
        }
        4 => sleepers.store(word as u32, Ordering::SeqCst),
        5 => dozers.store(word as u32, Ordering::SeqCst),
        6 => {
            let at = chance(shared.memory.all().len() as u64 - 8) as usize;
            let place = shared.memory.all().subslice(at, 8).expect("within");
            place.copy_from(&word.to_le_bytes());
        }
        _ => shared.reply_events().notify(),
    }
}

fn new(len: usize) -> Arc<Shared> {
    let_timeouts_pass();
    let longest = Some(Duration::from_secs(1));
    Arc::new(Shared { longest, ..Shared::new(len, 1) })
}

#[test]
fn a_reader_ends_whatever_the_writer_does() {
    explore(|| {
        let shared = new(64);
        let hostile = Arc::clone(&shared);
        // Like a process that outlives its worker, this may write after the worker's end.
        let hostile = spawn(move || (0..12).for_each(|_| write_something(&hostile)));
        let notes = Arc::clone(&shared);
        let watch = spawn(move || notes.note_end());
        let _ = shared.receive(1_000);
        watch.join();
        hostile.join();
    });
}

#[test]
fn a_writer_continues_or_gets_an_error_whatever_the_reader_does() {
    explore(|| {
        let shared = new(64);
        let hostile = Arc::clone(&shared);
        let hostile = spawn(move || (0..12).for_each(|_| write_something(&hostile)));
        let mut writer = Writer::default();
        for number in 0..6 {
            let parts = [&[number; 8][..], &[0; 20][..usize::from(number)]];
            let _ = writer.fits(&shared.ring(), &parts);
            let _ = writer.write(&shared.ring(), number, &parts);
            shared.reply_events().notify();
        }
        hostile.join();
    });
}
