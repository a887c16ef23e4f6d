//! Tests of attachments, from `pass` to `Assembly`.

use std::fs::File;
use std::iter;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use procession_os::sealed;

use super::send::{Draft, Item, new_file};
use super::*;
use crate::transport::segments::{Direction, MOST_BYTES, SegmentWriter};
use crate::transport::shared_region::SharedRegion;
use crate::transport::socket::Sent;

fn pair() -> (Socket, Socket) {
    let (ours, theirs) = Socket::pair().expect("a pair");
    (ours, Socket::of(theirs.as_fd()).expect("an end"))
}

fn blobs(lens: impl IntoIterator<Item = usize>) -> Vec<Blob> {
    lens.into_iter().map(|len| vec![(len % 251) as u8; len].into()).collect()
}

#[test]
fn texts_and_blobs_of_all_lengths_arrive() {
    let (one, other) = pair();
    let mut assembly = Assembly::default();
    let long = "x".repeat(100_000);
    for text in [None, Some(""), Some("ü"), Some(&long)] {
        for lens in [vec![], vec![0, 1, 1024, 1025, 100_000], vec![700; 20], vec![5_000; 100]] {
            let blobs = blobs(lens);
            match pass(text.map(str::as_bytes), &blobs, 0, &one, &mut SegmentWriter::default()) {
                Passed::All => {}
                Passed::Appendix(message) => assert_eq!(one.send(&message, &[]), Sent::Yes),
                Passed::Nothing if text.is_none() && blobs.is_empty() => continue,
                other => panic!("{other:?}"),
            }
            let mut got = assembly.next(&[], &other, &mut Patience::none()).expect("sound");
            let expected = text.unwrap_or("in the record");
            assert_eq!(got.text(b"in the record"), expected.as_bytes());
            assert_eq!(got.take_blobs(), blobs);
        }
    }
    assert!(assembly.next(&[], &other, &mut Patience::none()).is_err(), "nothing was sent");
}

#[test]
fn an_attachment_with_more_bytes_than_it_may_have_is_lost_and_the_next_one_arrives() {
    let (one, other) = pair();
    let mut assembly = Assembly::default().with_most_bytes(50_000);
    let long = vec![b'x'; 50_001];
    for (text, lens) in [
        (None, vec![50_001]),
        (Some(&long[..]), vec![]),
        (None, vec![1_000; 51]),
        // In several messages.
        (None, vec![2_000; 200]),
        (Some(b"x"), vec![50_000]),
    ] {
        let refused = pass(text, &blobs(lens), 0, &one, &mut SegmentWriter::default());
        assert!(matches!(refused, Passed::All));
        let mut got = assembly.next(&[], &other, &mut Patience::none()).expect("sound");
        assert_eq!(got.lost(), Some("it has more than 50000 bytes"));
        assert!(got.text.is_none() && got.take_blobs().is_empty());
        let most = blobs([50_000]);
        assert!(matches!(pass(None, &most, 0, &one, &mut SegmentWriter::default()), Passed::All));
        let mut got = assembly.next(&[], &other, &mut Patience::none()).expect("sound");
        assert_eq!((got.lost().is_some(), got.take_blobs()), (false, most));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_beyond_the_bound_is_lost_and_is_not_opened() {
    let (one, other) = pair();
    let mut assembly = Assembly::default().with_most_bytes(50_000);
    // It is not sealed, so within the bound it is an error.
    let Ok(file) = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC) else { return };
    for (length, is_lost) in [(50_001_u64, true), (u64::MAX >> 2, true), (50_000, false)] {
        let bytes = [&[KIND, IS_FIRST, 1][..], &length.to_le_bytes()].concat();
        assert_eq!(one.send(&bytes, &[file.as_fd()]), Sent::Yes);
        let got = assembly.next(&[], &other, &mut Patience::none());
        assert_eq!(got.is_ok_and(|got| got.lost().is_some()), is_lost, "{length}");
    }
}

#[test]
fn an_attachment_is_continued_after_a_full_socket_and_one_that_was_given_up_is_dropped() {
    let (one, other) = pair();
    let mut assembly = Assembly::default();
    // First messages of attachments that are given up fill the socket.
    let given_up = Draft::of(iter::once(Item::Text(b"given up")), &mut SegmentWriter::default()).0;
    let message = given_up.message(IS_FIRST | HAS_MORE | HAS_TEXT);
    while given_up.send(&message, &one) == Sent::Yes {}
    let many = blobs(iter::repeat_n(900, 256));
    let (mut from, mut rounds) = (0, 0);
    loop {
        match pass(None, &many, from, &one, &mut SegmentWriter::default()) {
            Passed::All => break,
            Passed::Part(items) => from = items,
            other => panic!("{other:?}"),
        }
        assembly.take_in(&other, &mut Patience::none()).expect("sound");
        rounds += 1;
    }
    assert!(rounds > 0);
    let mut got = assembly.next(&[], &other, &mut Patience::none()).expect("sound");
    assert_eq!(got.text(b"none"), b"none");
    assert_eq!(got.take_blobs(), many);
}

#[test]
fn an_attachment_in_segments_that_the_other_side_has_goes_with_the_record() {
    if !sealed::is_available() {
        return;
    }
    let (region, file) = SharedRegion::create(1).expect("memory");
    let (region, theirs) = (Arc::new(region), Arc::new(SharedRegion::open(file).expect("memory")));
    for direction in [Direction::ToWorker, Direction::ToCoordinator] {
        let (one, other) = pair();
        let mut writer = SegmentWriter::new(Arc::clone(&region), direction, MOST_BYTES);
        let reader = SegmentReader::new(Arc::clone(&theirs), direction);
        let mut assembly = Assembly::with(reader);
        let mut appended = 0;
        for len in [5_000, 5_000, 60_000, 1_025, 1_024, 100] {
            let blobs = blobs([len, len + 1]);
            let appendix = match pass(Some(b"a text"), &blobs, 0, &one, &mut writer) {
                Passed::All => Vec::new(),
                Passed::Appendix(message) => message,
                other => panic!("{other:?}"),
            };
            if !appendix.is_empty() {
                appended += 1;
                assert!(matches!(other.receive(), Received::Nothing), "{len} bytes");
            }
            let mut got = assembly.next(&appendix, &other, &mut Patience::none()).expect("sound");
            assert_eq!(got.text(b"none"), b"a text");
            assert_eq!(got.take_blobs(), blobs);
        }
        // The first has descriptors, and items in the message of the others are too long.
        assert_eq!(appended, 3, "{direction:?}");
    }
}

#[test]
fn a_malformed_appendix_is_an_error_and_one_takes_the_place_of_what_was_given_up() {
    let (one, other) = pair();
    let mut assembly = Assembly::default();
    let whole = |text: &'static [u8]| {
        Draft::of(iter::once(Item::Text(text)), &mut SegmentWriter::default()).0
    };
    let mut next = |appendix: &[u8]| {
        let given_up = whole(b"given up");
        assert_eq!(given_up.send(&given_up.message(IS_FIRST | HAS_TEXT), &one), Sent::Yes);
        assembly.take_in(&other, &mut Patience::none()).expect("sound");
        let next = assembly.next(appendix, &other, &mut Patience::none());
        next.map(|next| next.text(b"none").to_vec())
    };
    assert_eq!(next(&whole(b"text").message(IS_FIRST | HAS_TEXT)), Ok(b"text".to_vec()));
    assert!(next(b"x").is_err() && next(&[KIND, IS_FIRST, 1]).is_err());
    let more = whole(b"text").message(IS_FIRST | HAS_TEXT | HAS_MORE);
    assert!(next(&more).is_err(), "more would follow");
}

#[test]
fn malformed_messages_are_errors() {
    let garbled = |bytes: &[u8], fds: &[BorrowedFd<'_>]| {
        let (one, other) = pair();
        assert_eq!(one.send(bytes, fds), Sent::Yes);
        Assembly::default().next(&[], &other, &mut Patience::none()).is_err()
    };
    let head = |flags: u8, items: u8| vec![KIND, flags, items];
    let with = |mut head: Vec<u8>, length: u64| {
        head.extend(length.to_le_bytes());
        head
    };
    assert!(!garbled(&head(IS_FIRST, 0), &[]));
    assert!(garbled(b"x", &[]) && garbled(&[9, IS_FIRST, 0], &[]));
    assert!(garbled(&head(0, 0), &[]), "not the first of an attachment");
    assert!(garbled(&head(IS_FIRST, 1), &[]), "no length");
    assert!(garbled(&with(head(IS_FIRST, 1), 1 << 45), &[]), "no descriptor");
    assert!(garbled(&with(head(IS_FIRST, 1), INLINE | 1 << 45), &[]), "no bytes");
    let file = new_file(&[7; 5_000]).expect("a file");
    assert!(!garbled(&with(head(IS_FIRST, 1), 5_000), &[file.as_fd()]));
    assert!(garbled(&head(IS_FIRST, 0), &[file.as_fd()]), "too many descriptors");
    for wrong in [0, 1, 4_999, 5_001, 1 << 45] {
        assert!(garbled(&with(head(IS_FIRST, 1), wrong), &[file.as_fd()]), "{wrong}");
    }
    let (reader, _writer) = io::pipe().expect("a pipe");
    assert!(garbled(&with(head(IS_FIRST, 1), 5_000), &[reader.as_fd()]), "a pipe");
    let disk = File::open(std::env::current_exe().expect("a path")).expect("a file");
    let len = disk.metadata().expect("a length").len();
    if sealed::is_available() {
        assert!(garbled(&with(head(IS_FIRST, 1), len), &[disk.as_fd()]), "a file on disk");
    }
}

#[test]
fn an_attachment_without_end_is_an_error() {
    const ENOUGH: usize = 100_000;
    let (one, other) = pair();
    let (mut assembly, mut patience) = (Assembly::default(), Patience::none());
    let send = |flags| one.send(&[KIND, flags, 0], &[]) == Sent::Yes;
    let mut sent = usize::from(send(IS_FIRST | HAS_MORE));
    while sent < ENOUGH && assembly.take_in(&other, &mut patience).is_ok() {
        sent += (sent..ENOUGH).take_while(|_| send(HAS_MORE)).count();
    }
    assert!(sent < ENOUGH, "{sent} messages");
}
