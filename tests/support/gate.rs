//! A server of flags that holds requests back until a given number of them is there: it counts how
//! many a client really has in flight at once, whatever the speed of the machine.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::hostile::TINY_GIF;

/// How long each request is kept after the gate has opened: time for one too many to come.
const STAY: Duration = Duration::from_millis(100);

/// The server; it ends with the test program.
pub(crate) struct GateServer {
    addr: SocketAddr,
    hall: Arc<GateState>,
}

struct GateState {
    /// So many open the gate.
    opens_at: usize,
    inside: Mutex<OpenRequest>,
    came: Condvar,
}

#[derive(Default)]
struct OpenRequest {
    now: usize,
    peak: usize,
}

impl GateServer {
    /// Starts a server that opens when `opens_at` requests are there.
    pub(crate) fn start(opens_at: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let hall = Arc::new(GateState { opens_at, inside: Mutex::default(), came: Condvar::new() });
        let shared = Arc::clone(&hall);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let hall = Arc::clone(&shared);
                thread::spawn(move || hall.receive(&client));
            }
        });
        GateServer { addr, hall }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/flags", self.addr)
    }

    /// The most requests that were ever inside at once.
    pub(crate) fn peak(&self) -> usize {
        self.hall.inside.lock().unwrap().peak
    }
}

impl GateState {
    fn receive(&self, mut client: &TcpStream) {
        let lines = BufReader::new(client).lines();
        if lines.map_while(Result::ok).take_while(|line| !line.is_empty()).count() == 0 {
            return;
        }
        let mut inside = self.inside.lock().unwrap();
        inside.now += 1;
        inside.peak = inside.peak.max(inside.now);
        self.came.notify_all();
        while inside.peak < self.opens_at {
            inside = self.came.wait(inside).unwrap();
        }
        drop(inside);
        thread::sleep(STAY);
        self.inside.lock().unwrap().now -= 1;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            TINY_GIF.len()
        );
        // The client may leave at any time.
        let _ = client.write_all(&[head.as_bytes(), TINY_GIF].concat());
    }
}
