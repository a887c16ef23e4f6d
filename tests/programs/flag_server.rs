//! The embedded servers as their clients see them: over real sockets.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::hostile::{Behaviour, HostileServer, TINY_GIF};
use procession_cli::flag_server::{
    DEFAULT_SEED, DELAY, Faults, FlagServer, ServerKind, StartError, image,
};
use procession_cli::flags::codes::AVAILABLE;

/// Far longer than anything here may take: a test that hangs must fail, not wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request that keeps its connection alive.
const GET_BR: &[u8] = b"GET /flags/br/br.gif HTTP/1.1\r\nHost: here\r\n\r\n";

fn start(kind: ServerKind) -> FlagServer {
    FlagServer::builder(kind).start().unwrap()
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into()
}

/// A connection that gives up reading and writing in the end.
fn connect(server: &FlagServer) -> TcpStream {
    let stream = TcpStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads one answer with a `Content-Length`: its status and its body.
fn read_answer(reader: &mut impl BufRead) -> io::Result<(u16, Vec<u8>)> {
    let mut lines = reader.by_ref().lines();
    let status_line = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    let status = status_line[9..12].parse().unwrap();
    let mut length = 0;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((status, body))
}

#[test]
fn all_available_flags_are_served_as_gifs() {
    let server = start(ServerKind::Local);
    let agent = agent();
    for code in AVAILABLE {
        let cc = code.to_ascii_lowercase();
        let url = format!("{}/{cc}/{cc}.gif", server.base_url());
        let mut response = agent.get(&url).call().unwrap();
        assert_eq!(response.status(), 200, "{url}");
        assert_eq!(response.headers()["content-type"], "image/gif");
        let length = response.headers()["content-length"].clone();
        let body = response.body_mut().read_to_vec().unwrap();
        assert_eq!(length, &*body.len().to_string());
        assert_eq!(body, image(&cc).unwrap());
    }
    assert_eq!(server.served(), 194);
}

#[test]
fn all_other_paths_are_not_found_with_a_plain_text() {
    let server = start(ServerKind::Local);
    for path in [
        "/zz/zz.gif",
        "/eu/eu.gif",
        "/BR/BR.gif",
        "/br/cn.gif",
        "/br/br.png",
        "/br/br.gif/",
        "/br",
        "/%62%72/br.gif",
        "/%ff/br.gif",
    ] {
        let url = format!("{}{path}", server.base_url());
        let mut response = agent().get(&url).call().unwrap();
        assert_eq!(response.status(), 404, "{url}");
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert!(kind.starts_with("text/plain"), "{kind}");
        let body = response.body_mut().read_to_string().unwrap();
        assert_eq!(body, "404 Not Found\n");
    }
}

#[test]
fn head_gives_the_length_without_the_image() {
    let server = start(ServerKind::Local);
    let stream = connect(&server);
    (&stream)
        .write_all(b"HEAD /flags/br/br.gif HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    (&stream).read_to_string(&mut answer).unwrap();
    let length = format!("content-length: {}\r\n", image("br").unwrap().len());
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains(&length), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn the_front_page_names_the_server_and_the_source_of_the_images() {
    let server = start(ServerKind::Delay);
    let origin = server.base_url().replace("/flags", "");
    for path in ["/", "/flags", "/flags/"] {
        let url = format!("{origin}{path}");
        let page = agent().get(&url).call().unwrap().body_mut().read_to_string();
        let page = page.unwrap();
        assert!(page.contains("DELAY") && page.contains("Twemoji"), "{page}");
    }
}

#[test]
fn the_error_server_keeps_to_its_plan_over_http() {
    let server = start(ServerKind::Error);
    let faults = Faults { kind: ServerKind::Error, seed: DEFAULT_SEED };
    let agent = agent();
    thread::scope(|scope| {
        for cc in ["ad", "br", "cn", "de", "in", "us", "qq", "zz"] {
            let (server, agent) = (&server, &agent);
            scope.spawn(move || {
                let url = format!("{}/{cc}/{cc}.gif", server.base_url());
                for attempt in 1..=4 {
                    let plan = faults.plan(cc, attempt);
                    let asked_at = Instant::now();
                    let response =
                        agent.get(&url).header("X-Attempt", attempt.to_string()).call().unwrap();
                    let otherwise = if image(cc).is_some() { 200 } else { 404 };
                    let expected = plan.status.unwrap_or(otherwise);
                    assert_eq!(response.status(), expected, "{cc}, attempt {attempt}");
                    if let Some(delay) = plan.delay {
                        assert!(asked_at.elapsed() >= delay, "{cc}, attempt {attempt}");
                    }
                }
            });
        }
    });
    assert_eq!(server.served(), 32);
}

#[test]
fn a_client_that_does_not_count_meets_faults_that_go_away() {
    let server = start(ServerKind::Error);
    let faults = Faults { kind: ServerKind::Error, seed: DEFAULT_SEED };
    let cc = AVAILABLE
        .map(str::to_ascii_lowercase)
        .into_iter()
        .find(|cc| faults.plan(cc, 1).status.is_some() && faults.plan(cc, 2).status.is_none())
        .unwrap();
    let url = format!("{}/{cc}/{cc}.gif", server.base_url());
    let first = agent().get(&url).call().unwrap();
    assert_eq!(first.status(), faults.plan(&cc, 1).status.unwrap());
    assert_eq!(agent().get(&url).call().unwrap().status(), 200);
}

#[test]
fn another_seed_makes_other_faults() {
    let [one, other] = [1, 2].map(|seed| Faults { kind: ServerKind::Error, seed });
    let cc = AVAILABLE
        .map(str::to_ascii_lowercase)
        .into_iter()
        .find(|cc| one.plan(cc, 1).status.is_some() && other.plan(cc, 1).status.is_none())
        .unwrap();
    for faults in [one, other] {
        let server = FlagServer::builder(ServerKind::Error).seed(faults.seed).start().unwrap();
        let url = format!("{}/{cc}/{cc}.gif", server.base_url());
        let expected = faults.plan(&cc, 1).status.unwrap_or(200);
        assert_eq!(agent().get(&url).call().unwrap().status(), expected);
    }
}

#[test]
fn the_hook_hears_of_each_request() {
    let (send, heard) = mpsc::channel();
    let server = FlagServer::builder(ServerKind::Delay)
        .on_request(move |access| {
            let path = access.path.to_owned();
            let _ = send.send((access.method.to_owned(), path, access.status, access.delayed));
        })
        .start()
        .unwrap();
    let agent = agent();
    let get = |path| agent.get(format!("{}{path}", server.base_url())).call();
    get("/br/br.gif?fresh").unwrap();
    get("/zz/zz.gif").unwrap();
    get("/nonsense").unwrap();
    agent.delete(format!("{}/br/br.gif", server.base_url())).call().unwrap();
    drop(server);

    let heard: Vec<_> = heard.iter().collect();
    let heard: Vec<_> = heard
        .iter()
        .map(|(method, path, status, delayed)| (method.as_str(), path.as_str(), *status, *delayed))
        .collect();
    let expected = [
        ("GET", "/flags/br/br.gif", 200, true),
        ("GET", "/flags/zz/zz.gif", 404, true),
        ("GET", "/flags/nonsense", 404, false),
        ("DELETE", "/flags/br/br.gif", 405, false),
    ];
    assert_eq!(heard, expected);
}

#[test]
fn a_thousand_delayed_requests_at_once_are_all_answered() {
    allow_many_connections();
    let server = start(ServerKind::Delay);
    let asked_at = Instant::now();
    let streams: Vec<_> = (0..1000)
        .map(|number| {
            let cc = AVAILABLE[number % AVAILABLE.len()].to_ascii_lowercase();
            let stream = connect(&server);
            write!(&stream, "GET /flags/{cc}/{cc}.gif HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
            (cc, stream)
        })
        .collect();
    for (cc, stream) in streams {
        let (status, body) = read_answer(&mut BufReader::new(stream)).unwrap();
        assert_eq!((status, body), (200, image(&cc).unwrap().to_vec()), "{cc}");
    }
    assert_eq!(server.served(), 1000);
    // One after the other they would take more than eight minutes.
    assert!(asked_at.elapsed() < PATIENCE, "{:?}", asked_at.elapsed());
}

/// Both ends of the thousand connections are in this one process, and many systems allow a process
/// no more than 1024 files until it asks.
fn allow_many_connections() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // A failure shows in the test that needs the files.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

#[test]
fn a_connection_serves_many_requests() {
    let server = start(ServerKind::Local);
    let mut stream = BufReader::new(connect(&server));
    for _ in 0..3 {
        for (cc, expected) in [("br", 200), ("zz", 404), ("cn", 200)] {
            let request = format!("GET /flags/{cc}/{cc}.gif HTTP/1.1\r\nHost: here\r\n\r\n");
            stream.get_mut().write_all(request.as_bytes()).unwrap();
            assert_eq!(read_answer(&mut stream).unwrap().0, expected);
        }
    }
}

#[test]
fn dropping_the_server_abandons_delayed_requests_at_once() {
    // On a busy machine a round may be too slow to tell anything, so there are several.
    let some_round_was_quick = (0..20).any(|_| {
        let server = start(ServerKind::Delay);
        let streams: Vec<_> = (0..50).map(|_| connect(&server)).collect();
        let asked_at = Instant::now();
        for mut stream in &streams {
            stream.write_all(GET_BR).unwrap();
        }
        drop(server);
        let quick = asked_at.elapsed() < DELAY;
        for mut stream in streams {
            let mut answer = Vec::new();
            // Closed or reset, according to what the server had read by then, but never left open.
            if let Err(error) = stream.read_to_end(&mut answer) {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
            assert!(!quick || answer.is_empty(), "answered too early");
        }
        quick
    });
    assert!(some_round_was_quick, "dropping waits for delayed requests");
}

#[test]
fn dropping_an_idle_server_does_not_wait_for_its_clients() {
    let server = start(ServerKind::Local);
    let silent = connect(&server);
    let mut alive = BufReader::new(connect(&server));
    alive.get_mut().write_all(GET_BR).unwrap();
    read_answer(&mut alive).unwrap();

    let (send, dropped) = mpsc::channel();
    thread::spawn(move || {
        drop(server);
        let _ = send.send(());
    });
    dropped.recv_timeout(PATIENCE).unwrap();
    drop((silent, alive));
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let first = start(ServerKind::Local);
    let error = FlagServer::builder(ServerKind::Error).addr(first.addr()).start().unwrap_err();
    assert!(
        matches!(&error, StartError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    );
    let message = error.to_string();
    assert!(message.contains(&first.addr().to_string()), "{message}");
    assert!(message.contains("ERROR"), "{message}");
}

#[test]
fn a_port_can_be_taken_again_as_soon_as_its_server_is_dropped() {
    // Another program may be quicker to take the free port, but not five times.
    let taken_again = (0..5).any(|_| {
        let first = start(ServerKind::Local);
        let addr = first.addr();
        let url = format!("{}/br/br.gif", first.base_url());
        agent().get(&url).call().unwrap();
        drop(first);
        let second = FlagServer::builder(ServerKind::Local).addr(addr).start();
        second.is_ok_and(|_server| agent().get(&url).call().unwrap().status() == 200)
    });
    assert!(taken_again);
}

#[test]
fn urls_are_for_clients_and_for_people() {
    let server = start(ServerKind::Local);
    let port = server.addr().port();
    assert_ne!(port, 0);
    assert_eq!(server.base_url(), format!("http://127.0.0.1:{port}/flags"));
    assert_eq!(server.shown_url(), format!("http://localhost:{port}/flags"));

    let everywhere =
        FlagServer::builder(ServerKind::Local).addr(([0, 0, 0, 0], 0).into()).start().unwrap();
    assert!(everywhere.base_url().starts_with("http://127.0.0.1:"));
}

// The hostile server is a tool for other tests, so it must be right itself.

#[test]
fn hostile_flaky_fails_the_given_number_of_times_for_each_path_and_then_sends_a_valid_gif() {
    let server = HostileServer::start(Behaviour::FlakyThenOk { fails: 2 });
    let agent = agent();
    for cc in ["br", "cn"] {
        let url = format!("{}/{cc}/{cc}.gif", server.base_url());
        for expected in [503, 503, 200, 200] {
            let mut response = agent.get(&url).call().unwrap();
            assert_eq!(response.status(), expected);
            if expected == 200 {
                let body = response.body_mut().read_to_vec().unwrap();
                assert_eq!(body, TINY_GIF);
            }
        }
    }
    assert_eq!(server.connections(), 8);

    let mut decoder = gif::DecodeOptions::new().read_info(TINY_GIF).unwrap();
    let frame = decoder.read_next_frame().unwrap().unwrap();
    assert_eq!((frame.width, frame.height), (1, 1));
    assert_eq!(&*frame.buffer, [1]);
    assert!(decoder.read_next_frame().unwrap().is_none());
}

#[test]
fn hostile_reset_resets_and_refuse_refuses() {
    let kind_of = |server: &HostileServer| {
        let url = format!("{}/br/br.gif", server.base_url());
        match agent().get(&url).call() {
            Err(ureq::Error::Io(error)) => error.kind(),
            other => panic!("{other:?}"),
        }
    };
    let reset = HostileServer::start(Behaviour::Reset);
    assert_eq!(kind_of(&reset), io::ErrorKind::ConnectionReset);
    assert_eq!(reset.connections(), 1);
    let refuse = HostileServer::start(Behaviour::Refuse);
    assert_eq!(kind_of(&refuse), io::ErrorKind::ConnectionRefused);
}

#[test]
fn hostile_bodies_are_broken_as_promised() {
    let ask = |behaviour, limit| {
        let server = HostileServer::start(behaviour);
        let url = format!("{}/br/br.gif", server.base_url());
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_recv_body(Some(limit)).build().into();
        let mut response = agent.get(&url).call()?;
        response.body_mut().with_config().limit(100_000).read_to_vec()
    };
    let half = ask(Behaviour::HalfBody, PATIENCE).unwrap_err();
    assert!(
        matches!(&half, ureq::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof),
        "{half:?}"
    );
    let endless = ask(Behaviour::EndlessBody, PATIENCE).unwrap_err();
    assert!(matches!(endless, ureq::Error::BodyExceedsLimit(_)), "{endless:?}");
    let trickle = ask(Behaviour::Trickle, Duration::from_millis(500)).unwrap_err();
    assert!(matches!(trickle, ureq::Error::Timeout(_)), "{trickle:?}");
    let redirects = ask(Behaviour::RedirectLoop, PATIENCE).unwrap_err();
    assert!(matches!(redirects, ureq::Error::TooManyRedirects), "{redirects:?}");
    let strange = ask(Behaviour::StrangeStatus(599, "Oops"), PATIENCE).unwrap_err();
    assert!(matches!(strange, ureq::Error::StatusCode(599)), "{strange:?}");
    let cut = ask(Behaviour::TruncatedGif, PATIENCE).unwrap();
    assert!(!cut.is_empty() && TINY_GIF.starts_with(&cut) && cut.len() < TINY_GIF.len());
    assert!(ask(Behaviour::NotQuiteGif, PATIENCE).unwrap().starts_with(b"GIF89a"));
    assert!(ask(Behaviour::Html, PATIENCE).unwrap().starts_with(b"<!DOCTYPE"));
}

#[test]
fn a_hostile_server_stops_while_a_client_is_stalled() {
    let server = HostileServer::start(Behaviour::Stall);
    let addr = server.base_url().replace("http://", "").replace("/flags", "");
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    drop(server);
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    assert_eq!(answer, b"");
}
