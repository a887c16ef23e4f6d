use super::*;
use std::fs::File;
use std::io::{Read, Write};
use std::thread;

fn pair() -> (Socket, Socket) {
    let (ours, theirs) = Socket::pair().expect("a pair");
    (ours, Socket { end: Some(Arc::new(theirs)), maker: None })
}

fn message(received: Received) -> Message {
    match received {
        Received::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_keep_their_boundaries_and_carry_descriptors() {
    let (one, other) = pair();
    let (mut reader, writer) = io::pipe().expect("a pipe");
    assert_eq!(one.send(b"first", &[writer.as_fd(); MOST_FDS]), Sent::Yes);
    assert_eq!(one.send(b"second", &[]), Sent::Yes);
    drop(writer);
    let first = message(other.receive());
    assert_eq!((&first.bytes[..], first.fds.len()), (&b"first"[..], MOST_FDS));
    for fd in first.fds {
        let flags = rustix::io::fcntl_getfd(&fd).expect("flags");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "it would be inherited");
        File::from(fd).write_all(b"x").expect("written");
    }
    assert_eq!(message(other.receive()).bytes, b"second");
    assert!(matches!(other.receive(), Received::Nothing));
    let mut read = Vec::new();
    reader.read_to_end(&mut read).expect("read");
    assert_eq!(read.len(), MOST_FDS);
}

#[test]
fn an_end_that_is_not_read_becomes_full_and_does_not_block() {
    let (one, other) = pair();
    let sent = std::iter::from_fn(|| (one.send(&[7; 500], &[]) == Sent::Yes).then_some(()));
    let sent = sent.take(100_000).count();
    assert!((1..100_000).contains(&sent), "{sent} messages");
    assert_eq!(one.send(b"x", &[]), Sent::NoRoom);
    for _ in 0..sent {
        message(other.receive());
    }
    one.wait_writable(Duration::from_secs(30));
    assert_eq!(one.send(b"x", &[]), Sent::Yes);
}

#[test]
fn a_message_that_is_too_long_is_an_error() {
    let (one, other) = pair();
    assert_eq!(one.send(&[7; LONGEST + 1], &[]), Sent::Yes);
    assert!(matches!(other.receive(), Received::Cut));
}

#[test]
#[cfg(all(target_os = "linux", not(feature = "portable")))]
fn a_discarded_message_is_removed_with_its_descriptors() {
    let (one, other) = pair();
    let (mut reader, writer) = io::pipe().expect("a pipe");
    assert_eq!(one.send(b"first", &[writer.as_fd()]), Sent::Yes);
    assert_eq!(one.send(b"second", &[]), Sent::Yes);
    drop(writer);
    assert_eq!(other.discard().as_deref(), Some(&b"first"[..]));
    let mut read = Vec::new();
    assert_eq!(reader.read_to_end(&mut read).expect("the end"), 0);
    assert_eq!(message(other.receive()).bytes, b"second");
    assert_eq!(other.discard(), None);
}

#[test]
#[cfg(all(target_os = "linux", not(feature = "portable")))]
fn a_descriptor_whose_close_takes_long_does_not_hold_up_who_discards_it() {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    const LINGER: Duration = Duration::from_secs(15);
    let (one, other) = pair();
    assert_eq!(one.send(b"first", &[one.end()]), Sent::Yes);
    assert_eq!(other.discard_unreceived(), Ok(Some(b"first".to_vec())));
    assert_eq!(other.discard_unreceived(), Ok(None));
    // The system completes the connection. The listener does not accept it, so its data stay unread.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut connection = TcpStream::connect(address).expect("a connection");
    connection.set_nonblocking(true).expect("a setting");
    while connection.write(&[7; 64 * 1024]).is_ok() {}
    rustix::net::sockopt::set_socket_linger(&connection, Some(LINGER)).expect("a setting");
    assert_eq!(one.send(b"second", &[connection.as_fd()]), Sent::Yes);
    drop(connection);
    let began = Instant::now();
    assert_eq!(other.discard_unreceived(), Err(Garbled));
    assert!(began.elapsed() < LINGER / 2);
    // The message is gone, and others can be received.
    assert_eq!(one.send(b"third", &[]), Sent::Yes);
    assert_eq!(message(other.receive()).bytes, b"third");
}

#[test]
fn the_end_of_the_other_side_leaves_no_message_to_be_received_twice() {
    let (one, other) = pair();
    assert_eq!(one.send(b"never read", &[]), Sent::Yes);
    assert_eq!(other.send(b"first", &[]), Sent::Yes);
    assert_eq!(other.send(b"second", &[]), Sent::Yes);
    drop(other);
    // The system reports that the other side has closed with an unread message, once.
    assert_eq!(one.discard().as_deref(), Some(&b"first"[..]));
    assert_eq!(message(one.receive()).bytes, b"second");
    assert!(matches!(one.receive(), Received::Gone));
}

#[test]
fn a_closed_or_shut_down_end_ends_the_wait() {
    let (one, other) = pair();
    assert_eq!(one.send(b"never read", &[]), Sent::Yes);
    assert_eq!(other.send(b"before the close", &[]), Sent::Yes);
    drop(other);
    one.wait_readable(None);
    assert_eq!(message(one.receive()).bytes, b"before the close");
    assert!(matches!(one.receive(), Received::Gone));
    assert_eq!(one.send(b"x", &[]), Sent::Gone);
    let (one, _other) = pair();
    let one = Arc::new(one);
    let waits = Arc::clone(&one);
    let waiter = thread::spawn(move || {
        waits.wait_readable(None);
        matches!(waits.receive(), Received::Gone)
    });
    one.shut_down();
    assert!(waiter.join().expect("no panic"));
}
