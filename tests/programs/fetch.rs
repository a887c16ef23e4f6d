//! Fetching and saving one flag, against servers that behave and servers that do not.
//!
//! The sockets are real; every wait has a deadline, and no test depends on something being fast.
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::scripted_server::{DEADLINE, Response, ScriptedServer, fetch_item, within};
use procession_cli::files::client::{Client, FetchSettings};
use procession_cli::files::download::{UpdateNotes, download};
use procession_cli::files::fetch::{FetchTools, Fetched, fetch};
use procession_cli::files::fetch_error::FetchError;
use procession_cli::files::image::InvalidGif;
use procession_cli::files::item::FileItem;
use procession_cli::files::outcome::DownloadStatus;
use procession_cli::files::save::ReceivedBody;
use procession_cli::files::validators::Validators;
use procession_cli::flags::items;

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn redirect(location: &str) -> Response {
    let head = format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    Response::Answer(head.into_bytes())
}

fn flag() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, 8, 4, &[255, 0, 0, 0, 0, 255]).unwrap();
    let pixels: Vec<u8> = (0..32).map(|i| i % 2).collect();
    encoder.write_frame(&gif::Frame::from_indexed_pixels(8, 4, pixels, None)).unwrap();
    drop(encoder);
    bytes
}

fn body(fetched: &Fetched) -> &[u8] {
    match &fetched.result {
        Ok(ReceivedBody::Bytes(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

fn error(fetched: &Fetched) -> String {
    fetched.result.as_ref().expect_err("it should have failed").message()
}

#[test]
fn a_flag_is_fetched_in_one_attempt() {
    let server = ScriptedServer::always(|| Response::Answer(answer("200 OK", &flag())));
    let fetched = server.fetch();
    assert_eq!(body(&fetched), flag());
    assert_eq!((fetched.http_status, fetched.attempts), (Some(200), 1));
    let seen = server.seen();
    assert_eq!((seen.len(), seen[0].path.as_str()), (1, "/flags/br/br.gif"));
    assert!(seen[0].headers.contains(&"x-attempt: 1".to_owned()), "{seen:?}");
    let agent = format!("user-agent: procession/{}", env!("CARGO_PKG_VERSION"));
    assert!(seen[0].headers.contains(&agent), "{seen:?}");
}

#[test]
fn a_loopback_server_is_reached_without_the_proxy() {
    let dead = "http://127.0.0.1:1";
    let rerun = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fetch::a_flag_is_fetched_in_one_attempt"])
        .envs([("ALL_PROXY", dead), ("HTTP_PROXY", dead), ("http_proxy", dead)])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&rerun.stdout);
    assert!(rerun.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn connections_are_reused_even_after_errors() {
    let server = ScriptedServer::start(|number, _| match number % 2 {
        0 => Response::Answer(answer("404 Not Found", b"no such flag")),
        _ => Response::Answer(answer("200 OK", &flag())),
    });
    let (settings, item) = (server.settings(), server.item("BR"));
    within(move || {
        let client = Client::new(&settings);
        for _ in 0..6 {
            let tools = FetchTools { client: &client, gate: None, dest: Path::new("/nowhere") };
            fetch(tools, &settings, &item, &Validators::default(), |_| {});
        }
    });
    let seen = server.seen();
    let peers: HashSet<SocketAddr> = seen.iter().map(|request| request.peer).collect();
    assert_eq!((seen.len(), peers.len()), (6, 1));
}

#[test]
fn a_404_is_not_found_and_is_not_tried_again() {
    let server = ScriptedServer::always(|| Response::Answer(answer("404 Not Found", b"")));
    let fetched = server.fetch_with(FetchSettings { retries: 3, ..server.settings() });
    assert!(matches!(fetched.result, Err(FetchError::NotFound)));
    assert_eq!((fetched.http_status, fetched.attempts), (Some(404), 1));
}

#[test]
fn statuses_are_reported_with_their_canonical_reason() {
    for (sent, told) in [
        ("503 Gone Fishing", "HTTP 503 - Service Unavailable"),
        ("503", "HTTP 503 - Service Unavailable"),
        ("599 Whatever", "HTTP 599 - Unknown Status"),
        ("403 Forbidden", "HTTP 403 - Forbidden"),
        ("204 No Content", "HTTP 204 - No Content"),
        ("206 Partial Content", "HTTP 206 - Partial Content"),
        ("302 Found", "HTTP 302 - Found"),
        ("304 Not Modified", "HTTP 304 - Not Modified"),
    ] {
        let server = ScriptedServer::always(move || Response::AnswerAndClose(answer(sent, b"")));
        let fetched = server.fetch();
        assert_eq!(error(&fetched), told);
        assert_eq!(fetched.http_status.unwrap().to_string(), sent[..3]);
    }
}

#[test]
fn half_a_body_is_no_flag() {
    let server = ScriptedServer::always(|| {
        let mut bytes = answer("200 OK", &flag());
        bytes.truncate(bytes.len() - 10);
        Response::AnswerAndClose(bytes)
    });
    let fetched = server.fetch_with(FetchSettings { retries: 1, ..server.settings() });
    assert!(matches!(fetched.result, Err(FetchError::CutShort)), "{fetched:?}");
    assert_eq!((fetched.http_status, fetched.attempts), (Some(200), 2));
}

#[test]
fn half_a_body_of_unknown_length_is_no_flag_either() {
    let server = ScriptedServer::always(|| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
        bytes.extend_from_slice(&flag()[..flag().len() - 1]);
        Response::AnswerAndClose(bytes)
    });
    let fetched = server.fetch();
    assert!(
        matches!(fetched.result, Err(FetchError::InvalidGif(InvalidGif::CutShort(_)))),
        "{fetched:?}"
    );
}

#[test]
fn a_web_page_is_no_flag() {
    let server =
        ScriptedServer::always(|| Response::Answer(answer("200 OK", b"<html>Welcome!</html>")));
    let fetched = server.fetch();
    assert_eq!(error(&fetched), "not a GIF image: it does not start as a GIF does");
    let empty = ScriptedServer::always(|| Response::Answer(answer("200 OK", b""))).fetch();
    assert_eq!(error(&empty), "not a GIF image: it is empty");
}

#[test]
fn an_endless_body_is_given_up_at_the_limit() {
    let server = ScriptedServer::always(|| {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        let chunk = [b"1000\r\n".as_slice(), &[b'x'; 0x1000], b"\r\n"].concat();
        Response::Endless(head, chunk, Duration::ZERO)
    });
    let fetched = server.fetch_with(FetchSettings { retries: 2, ..server.settings() });
    assert_eq!(error(&fetched), "the body is larger than 10000000 bytes");
    assert_eq!(fetched.attempts, 1);
}

#[test]
fn a_body_of_exactly_the_limit_is_taken_and_a_longer_one_is_not_even_read() {
    let server = ScriptedServer::always(|| Response::Answer(answer("200 OK", &flag())));
    let exact = FetchSettings { max_bytes: Some(flag().len() as u64), ..server.settings() };
    assert!(server.fetch_with(exact.clone()).result.is_ok());
    let short = FetchSettings { max_bytes: Some(flag().len() as u64 - 1), ..exact };
    assert!(matches!(server.fetch_with(short).result, Err(FetchError::TooLarge { .. })));
    let server = ScriptedServer::always(|| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
        Response::Endless(head, Vec::new(), Duration::from_millis(10))
    });
    assert!(matches!(server.fetch().result, Err(FetchError::TooLarge { .. })));
}

#[test]
fn a_silent_server_times_out() {
    let server = ScriptedServer::always(|| Response::Stall);
    let timeout = Duration::from_millis(300);
    let fetched = server.fetch_with(FetchSettings { timeout, retries: 1, ..server.settings() });
    assert_eq!(error(&fetched), "timed out after 0.3 s");
    assert_eq!((fetched.http_status, fetched.attempts), (None, 2));
}

#[test]
fn the_timeout_covers_the_whole_body_however_it_drips() {
    let server = ScriptedServer::always(|| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nGIF89a".to_vec();
        Response::Endless(head, b"x".to_vec(), Duration::from_millis(20))
    });
    let timeout = Duration::from_millis(500);
    let fetched = server.fetch_with(FetchSettings { timeout, ..server.settings() });
    assert_eq!(error(&fetched), "timed out after 0.5 s");
}

#[test]
fn a_timeout_may_be_as_long_as_one_likes() {
    let server = ScriptedServer::always(|| Response::Answer(answer("200 OK", &flag())));
    let timeout = Duration::MAX;
    let fetched = server.fetch_with(FetchSettings { timeout, ..server.settings() });
    assert!(fetched.result.is_ok(), "{fetched:?}");
}

#[test]
fn the_timeout_covers_all_redirects() {
    let server = ScriptedServer::start(|number, _| {
        thread::sleep(Duration::from_millis(200));
        redirect(&format!("/flags/{number}"))
    });
    let timeout = Duration::from_millis(500);
    let fetched = server.fetch_with(FetchSettings { timeout, ..server.settings() });
    assert_eq!(error(&fetched), "timed out after 0.5 s");
    assert!(server.seen().len() < 5);
}

#[test]
fn a_refused_connection_is_reported_and_retried() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // The client end of a connection: an address that is taken, and where nobody listens.
    let taken = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    let fetched = fetch_item(
        items::item(&url, "BR".parse().unwrap()),
        FetchSettings { retries: 1, ..FetchSettings::default() },
    );
    assert_eq!(error(&fetched), "connection error: connection refused");
    assert_eq!((fetched.http_status, fetched.attempts), (None, 2));
}

#[test]
fn a_server_that_hangs_up_is_a_connection_error() {
    let server = ScriptedServer::always(|| Response::AnswerAndClose(Vec::new()));
    let fetched = server.fetch();
    assert!(matches!(fetched.result, Err(FetchError::Connection(_))), "{fetched:?}");
}

#[test]
fn something_else_than_http_is_a_bad_answer() {
    let server =
        ScriptedServer::always(|| Response::AnswerAndClose(b"220 mail ready\r\n\r\n".to_vec()));
    let fetched = server.fetch_with(FetchSettings { retries: 2, ..server.settings() });
    assert!(matches!(fetched.result, Err(FetchError::Protocol(_))), "{fetched:?}");
    assert_eq!(fetched.attempts, 1);
}

#[test]
fn redirects_are_followed() {
    let server = ScriptedServer::start(|_, path| match path {
        "/flags/br/br.gif" => redirect("moved.gif"),
        "/flags/br/moved.gif" => redirect("/elsewhere"),
        _ => Response::Answer(answer("200 OK", &flag())),
    });
    let fetched = server.fetch();
    assert_eq!(body(&fetched), flag());
    assert_eq!((fetched.attempts, server.seen().len()), (1, 3));
}

#[test]
fn a_redirect_loop_ends() {
    let server = ScriptedServer::always(|| redirect("/flags/br/br.gif"));
    let fetched = server.fetch_with(FetchSettings { retries: 2, ..server.settings() });
    assert!(matches!(fetched.result, Err(FetchError::TooManyRedirects(10))), "{fetched:?}");
    assert_eq!((fetched.attempts, server.seen().len()), (1, 11));
    assert_eq!(fetched.http_status, Some(302));
}

#[test]
fn a_third_attempt_may_succeed() {
    let server = ScriptedServer::start(|number, _| match number {
        0 => Response::Answer(answer("503 Service Unavailable", b"")),
        1 => Response::AnswerAndClose(Vec::new()),
        _ => Response::Answer(answer("200 OK", &flag())),
    });
    let fetched = server.fetch_with(FetchSettings { retries: 5, ..server.settings() });
    assert_eq!(body(&fetched), flag());
    assert_eq!((fetched.http_status, fetched.attempts), (Some(200), 3));
    let numbers: Vec<String> = server
        .seen()
        .into_iter()
        .flat_map(|request| request.headers)
        .filter_map(|header| header.strip_prefix("x-attempt: ").map(str::to_owned))
        .collect();
    assert_eq!(numbers, ["1", "2", "3"]);
}

#[test]
fn attempts_run_out() {
    let server = ScriptedServer::always(|| Response::Answer(answer("500 Oops", b"")));
    let fetched = server.fetch_with(FetchSettings { retries: 2, ..server.settings() });
    assert_eq!(error(&fetched), "HTTP 500 - Internal Server Error");
    assert_eq!((fetched.attempts, server.seen().len()), (3, 3));
    let pauses: Vec<Duration> =
        server.seen().windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    // Jitter only adds.
    assert!(pauses[0] >= Duration::from_millis(90), "{pauses:?}");
    assert!(pauses[1] >= Duration::from_millis(190), "{pauses:?}");
}

#[test]
fn a_server_may_ask_for_a_longer_pause() {
    let server = ScriptedServer::start(|number, _| match number {
        0 => {
            let head = b"HTTP/1.1 429 Slow Down\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
            Response::Answer(head.to_vec())
        }
        _ => Response::Answer(answer("200 OK", &flag())),
    });
    let fetched = server.fetch_with(FetchSettings { retries: 1, ..server.settings() });
    assert!(fetched.result.is_ok());
    let seen = server.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(990));
}

#[test]
fn a_download_is_saved_and_reported() {
    let server = ScriptedServer::start(|_, path| match path {
        "/flags/br/br.gif" => Response::Answer(answer("200 OK", &flag())),
        "/flags/ke/ke.gif" => Response::Answer(answer("503 Service Unavailable", b"")),
        _ => Response::Answer(answer("404 Not Found", b"")),
    });
    let settings = server.settings();
    let dest = tempfile::tempdir().unwrap();
    let dir = dest.path().to_owned();
    let items = ["BR", "KE", "ZZ"].map(|code| server.item(code));
    let [br, ke, zz, nowhere] = within(move || {
        let client = Client::new(&settings);
        let one = |dest: &Path, item: &FileItem| {
            let tools = FetchTools { client: &client, gate: None, dest };
            download(tools, &settings, UpdateNotes::default(), item, |_| {})
        };
        let [br, ke, zz] = &items;
        [one(&dir, br), one(&dir, ke), one(&dir, zz), one(&dir.join("missing"), br)]
    });
    assert_eq!(
        (br.status, br.bytes, br.attempts),
        (DownloadStatus::Ok, Some(flag().len() as u64), 1)
    );
    assert_eq!((br.pid, br.worker, br.error), (std::process::id(), None, None));
    assert!(br.elapsed_ms > 0.0);
    assert_eq!(ke.error.as_deref(), Some("HTTP 503 - Service Unavailable"));
    assert_eq!((ke.status, ke.http_status), (DownloadStatus::Error, Some(503)));
    assert_eq!((zz.status, zz.error), (DownloadStatus::NotFound, None));
    assert_eq!((nowhere.status, nowhere.http_status), (DownloadStatus::Error, Some(200)));
    assert!(nowhere.error.unwrap().starts_with("cannot save "));
    assert_eq!(std::fs::read(dest.path().join("br.gif")).unwrap(), flag());
    assert_eq!(std::fs::read_dir(dest.path()).unwrap().count(), 1);
}

#[test]
fn a_shut_down_agent_ends_a_fetch_at_once() {
    let (asked, was_asked) = mpsc::channel();
    let server = ScriptedServer::start(move |_, _| {
        asked.send(()).ok();
        Response::Stall
    });
    let settings = FetchSettings { timeout: DEADLINE, ..server.settings() };
    let shared = Arc::new(Client::new(&settings));
    let clone = Arc::clone(&shared);
    let item = server.item("BR");
    let running = thread::spawn(move || {
        let tools = FetchTools { client: &clone, gate: None, dest: Path::new("/nowhere") };
        fetch(tools, &settings, &item, &Validators::default(), |_| {})
    });
    was_asked.recv_timeout(DEADLINE).unwrap();
    shared.agent(&server.base().parse().unwrap()).clone().shutdown();
    let fetched = within(move || running.join().unwrap());
    assert!(matches!(fetched.result, Err(FetchError::Connection(_))), "{fetched:?}");
}
