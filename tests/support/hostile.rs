//! A web server that behaves badly in one chosen way, for testing clients.
//!
//! It uses nothing but the standard library, so that no HTTP crate can repair what it breaks. It
//! answers one request per connection, each in a thread of its own, and is gone when dropped.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A whole GIF: one white pixel.
pub(crate) const TINY_GIF: &[u8] = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff\
    \x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0\x3b";

/// What to do to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Nobody listens on the port.
    Refuse,
    /// Accepts, and resets the connection when the request comes.
    Reset,
    /// Accepts, and never answers.
    Stall,
    /// Promises 1000 bytes, sends 500, and closes.
    HalfBody,
    /// Sends a body of no stated length that never ends.
    EndlessBody,
    /// Sends the body byte by byte, ten bytes a second, for ever.
    Trickle,
    /// Answers with a web page in place of an image.
    Html,
    /// Begins like a GIF and goes on with garbage.
    NotQuiteGif,
    /// Closes in the middle of a GIF whose length it never told.
    TruncatedGif,
    /// Redirects every path to itself.
    RedirectLoop,
    /// Answers with this status and reason.
    StrangeStatus(u16, &'static str),
    /// Fails the first requests for each path with 503, then sends a GIF.
    FlakyThenOk {
        /// How many requests to fail.
        fails: usize,
    },
}

/// A badly behaving server on a free port of this machine; dropped means stopped.
pub(crate) struct HostileServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    /// Both ends of the connection that reserves the port of `Refuse`.
    _reserved: Option<(TcpStream, TcpStream)>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    connections: AtomicUsize,
    /// Who is connected, to cut the conversations off when the server stops.
    clients: Mutex<HashMap<usize, Arc<TcpStream>>>,
    requests_by_path: Mutex<HashMap<String, usize>>,
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, HashMap<usize, Arc<TcpStream>>> {
        self.clients.lock().unwrap()
    }

    /// How many requests for this path came before this one.
    fn earlier_requests(&self, path: &str) -> usize {
        let mut requests = self.requests_by_path.lock().unwrap();
        let count = requests.entry(path.to_owned()).or_default();
        *count += 1;
        *count - 1
    }
}

impl HostileServer {
    /// Starts the server; it can be asked as soon as this returns.
    pub(crate) fn start(behaviour: Behaviour) -> HostileServer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let shared = Arc::new(Shared::default());
        let addr = listener.local_addr().unwrap();
        if behaviour == Behaviour::Refuse {
            // The near end of a connection holds its port, so no other program gets it, but does
            // not listen on it.
            let near = TcpStream::connect(addr).unwrap();
            let far = listener.accept().unwrap().0;
            return HostileServer {
                addr: near.local_addr().unwrap(),
                shared,
                acceptor: None,
                _reserved: Some((near, far)),
            };
        }
        let acceptor = {
            let shared = shared.clone();
            thread::spawn(move || accept(&listener, behaviour, &shared))
        };
        HostileServer { addr, shared, acceptor: Some(acceptor), _reserved: None }
    }

    /// Such as `http://127.0.0.1:40123/flags`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/flags", self.addr)
    }

    /// How many connections were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for HostileServer {
    fn drop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else {
            return;
        };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which then sees that it is time to go.
        let _ = TcpStream::connect(self.addr);
        let _ = acceptor.join();
    }
}

fn accept(listener: &TcpListener, behaviour: Behaviour, shared: &Arc<Shared>) {
    let mut conversations = Vec::new();
    for client in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        let Ok(client) = client.map(Arc::new) else {
            continue;
        };
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.clients().insert(number, client.clone());
        let shared = shared.clone();
        conversations.push(thread::spawn(move || {
            // An error is the client's leaving, which is its right.
            let _ = misbehave(&client, behaviour, &shared);
            // Only the last handle closes the connection, and the client may be waiting for that.
            shared.clients().remove(&number);
        }));
    }
    for client in shared.clients().values() {
        let _ = client.shutdown(Shutdown::Both);
    }
    for conversation in conversations {
        let _ = conversation.join();
    }
}

/// One conversation, from the request to the bitter end; returning closes the connection.
fn misbehave(client: &TcpStream, behaviour: Behaviour, shared: &Shared) -> io::Result<()> {
    if behaviour == Behaviour::Reset {
        // Closing while the request lies unread makes TCP send a reset.
        client.peek(&mut [0])?;
        return Ok(());
    }
    let path = read_request(client)?;
    match behaviour {
        Behaviour::Refuse | Behaviour::Reset => unreachable!("dealt with earlier"),
        Behaviour::Stall => wait_for_the_end(client),
        Behaviour::HalfBody => {
            send_head(client, "200 OK", "image/gif", Some(1000))?;
            send(client, &gif_of(500))
        }
        Behaviour::EndlessBody => {
            send_head(client, "200 OK", "image/gif", None)?;
            send(client, &gif_of(1000))?;
            loop {
                send(client, &[0; 16 * 1024])?;
            }
        }
        Behaviour::Trickle => {
            send_head(client, "200 OK", "image/gif", Some(1_000_000))?;
            for byte in gif_of(1_000_000) {
                send(client, &[byte])?;
                thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        }
        Behaviour::Html => {
            let page = b"<!DOCTYPE html><title>Welcome</title><p>Please log in to the network.";
            send_whole(client, "200 OK", "text/html; charset=utf-8", page)
        }
        Behaviour::NotQuiteGif => {
            let body = [b"GIF89a".as_slice(), &[0xa5; 300]].concat();
            send_whole(client, "200 OK", "image/gif", &body)
        }
        Behaviour::TruncatedGif => {
            send_head(client, "200 OK", "image/gif", None)?;
            send(client, &TINY_GIF[..TINY_GIF.len() / 2])
        }
        Behaviour::RedirectLoop => {
            let head = format!(
                "HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n"
            );
            send(client, head.as_bytes())
        }
        Behaviour::StrangeStatus(code, why) => {
            send_whole(client, &format!("{code} {why}"), "text/plain", b"")
        }
        Behaviour::FlakyThenOk { fails } if shared.earlier_requests(&path) < fails => {
            send_whole(client, "503 Service Unavailable", "text/plain", b"not yet")
        }
        Behaviour::FlakyThenOk { .. } => send_whole(client, "200 OK", "image/gif", TINY_GIF),
    }
}

/// Reads a request up to its empty line, and gives its path.
fn read_request(client: &TcpStream) -> io::Result<String> {
    let mut lines = BufReader::new(client).lines();
    let first = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    Ok(first.split(' ').nth(1).unwrap_or("/").to_owned())
}

/// Returns when the client has gone or the server stops.
fn wait_for_the_end(mut client: &TcpStream) -> io::Result<()> {
    io::copy(&mut client, &mut io::sink()).map(drop)
}

/// The start of a GIF that, by its looks, could well be `size` bytes long.
fn gif_of(size: usize) -> Vec<u8> {
    let mut gif =
        b"GIF89a\x48\0\x48\0\x80\0\0\0\0\0\xff\xff\xff\x2c\0\0\0\0\x48\0\x48\0\0\x02".to_vec();
    gif.resize(size, 0x55);
    gif
}

fn send_whole(client: &TcpStream, status: &str, kind: &str, body: &[u8]) -> io::Result<()> {
    send_head(client, status, kind, Some(body.len()))?;
    send(client, body)
}

fn send_head(
    client: &TcpStream,
    status: &str,
    kind: &str,
    length: Option<usize>,
) -> io::Result<()> {
    let length = length.map_or_else(String::new, |n| format!("Content-Length: {n}\r\n"));
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{length}Connection: close\r\n\r\n");
    send(client, head.as_bytes())
}

fn send(mut client: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    client.write_all(bytes)
}
