//! Descriptors that take long to close, sent to the coordinator: connections with data that nobody reads.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process;
use std::time::{Duration, Instant};

use procession::{Executor, TaskError};
use rustix::net::sockopt::set_socket_linger;
use serde::{Deserialize, Serialize};

use super::attacks::{Attack, Hostile, message, publish_blob, send};
use super::{ends_at_once, pool};
use crate::tasks::succeeds_with;

/// How the connection is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Lingering {
    /// In place of sealed memory.
    AsBlob,
    /// More often than a message may have descriptors.
    TooOften,
    /// In a message that no record asks for. Then the worker dies.
    Unread,
}

/// How long a close takes, if it waits for all data to be read.
const LINGER: Duration = Duration::from_secs(15);

pub(super) fn send_one(way: Lingering, port: u16, id: u64) -> io::Result<()> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_nonblocking(true)?;
    while connection.write(&[7; 64 * 1024]).is_ok() {}
    set_socket_linger(&connection, Some(LINGER))?;
    let times = if way == Lingering::TooOften { 100 } else { 1 };
    send(&message(0, &vec![2_000; times], &[]), &vec![connection.as_fd(); times]);
    // The coordinator has the last one.
    drop(connection);
    if way == Lingering::Unread {
        process::abort();
    }
    publish_blob(id);
    Ok(())
}

pub(super) fn a_descriptor_whose_close_takes_long_delays_nothing() {
    // Connections are established by the system, and nobody reads.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    for way in [Lingering::AsBlob, Lingering::TooOften, Lingering::Unread] {
        let (began, pool) = (Instant::now(), pool());
        let died = pool.submit(Hostile(Attack::Lingering(way, port))).result();
        assert!(matches!(died, Err(TaskError::WorkerDied(_))), "{way:?}: {died:?}");
        succeeds_with(&pool, 20);
        ends_at_once(&pool);
        drop(pool);
        let took = began.elapsed();
        assert!(took < LINGER / 2, "{way:?}: {took:?}");
    }
}
