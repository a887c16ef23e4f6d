//! A server on a real socket whose responses a test chooses.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use procession_cli::files::client::{Client, FetchSettings};
use procession_cli::files::fetch::{FetchTools, Fetched, fetch};
use procession_cli::files::item::FileItem;
use procession_cli::files::validators::Validators;
use procession_cli::flags::items;

/// Longer than anything here may take; a test that meets it has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The response to a request.
pub(crate) enum Response {
    /// Answer, and keep the connection.
    Answer(Vec<u8>),
    /// Answer, and close the connection.
    AnswerAndClose(Vec<u8>),
    /// Answer, then repeat the second part with pauses until the client closes the connection.
    Endless(Vec<u8>, Vec<u8>, Duration),
    /// Send nothing until the client closes the connection.
    Stall,
}

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct SeenRequest {
    pub(crate) peer: SocketAddr,
    pub(crate) at: Instant,
    pub(crate) path: String,
    pub(crate) headers: Vec<String>,
}

/// A server whose responses are those of a function.
pub(crate) struct ScriptedServer {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<SeenRequest>>>,
}

impl ScriptedServer {
    /// Serves until the test program ends. `act` gets the number of the request, from 0.
    pub(crate) fn start(act: impl Fn(usize, &str) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}/flags", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let server = ScriptedServer { url, seen: Arc::clone(&seen) };
        let act = Arc::new(act);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (act, seen) = (Arc::clone(&act), Arc::clone(&seen));
                // The client may leave at any time.
                thread::spawn(move || serve(stream, &*act, &seen).ok());
            }
        });
        server
    }

    /// Always does the same.
    pub(crate) fn always(act: impl Fn() -> Response + Send + Sync + 'static) -> Self {
        Self::start(move |_, _| act())
    }

    pub(crate) fn seen(&self) -> Vec<SeenRequest> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn settings(&self) -> FetchSettings {
        let (timeout, server) = (Duration::from_secs(20), Some("TEST".to_owned()));
        FetchSettings { timeout, server, ..FetchSettings::default() }
    }

    /// The URL without the path of flags.
    pub(crate) fn base(&self) -> String {
        self.url.trim_end_matches("/flags").to_owned()
    }

    /// The item of a flag here.
    pub(crate) fn item(&self, code: &str) -> FileItem {
        items::item(&self.url, code.parse().unwrap())
    }

    pub(crate) fn fetch(&self) -> Fetched {
        self.fetch_with(self.settings())
    }

    /// Fetches the flag of Brazil.
    pub(crate) fn fetch_with(&self, settings: FetchSettings) -> Fetched {
        fetch_item(self.item("BR"), settings)
    }
}

fn serve(
    mut stream: TcpStream,
    act: &dyn Fn(usize, &str) -> Response,
    seen: &Mutex<Vec<SeenRequest>>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                text => head.push(text.to_owned()),
            }
        }
        let path = head[0].split(' ').nth(1).unwrap().to_owned();
        let request = SeenRequest {
            peer: stream.peer_addr()?,
            at: Instant::now(),
            path: path.clone(),
            headers: head[1..].iter().map(|line| line.to_lowercase()).collect(),
        };
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request);
            seen.len() - 1
        };
        match act(number, &path) {
            Response::Answer(bytes) => stream.write_all(&bytes)?,
            Response::AnswerAndClose(bytes) => return stream.write_all(&bytes),
            Response::Endless(first, then, pause) => {
                stream.write_all(&first)?;
                let start = Instant::now();
                while start.elapsed() < DEADLINE {
                    stream.write_all(&then)?;
                    thread::sleep(pause);
                }
            }
            Response::Stall => {
                reader.fill_buf()?;
                return Ok(());
            }
        }
    }
}

pub(crate) fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(DEADLINE).expect("it should have come to an end")
}

/// Fetches an item whose body is held in memory.
pub(crate) fn fetch_item(item: FileItem, settings: FetchSettings) -> Fetched {
    within(move || {
        let client = Client::new(&settings);
        let tools = FetchTools { client: &client, gate: None, dest: Path::new("/nowhere") };
        fetch(tools, &settings, &item, &Validators::default(), |_| {})
    })
}
