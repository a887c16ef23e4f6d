//! `--update`: what has not changed on the server is not downloaded again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::SystemTime;

use crate::programs::{FinishedProgram, MODES, ProgramDir};

fn unchanged(ran: &FinishedProgram) -> u64 {
    ran.summary().all["unchanged"].as_u64().unwrap_or(0)
}

fn written(place: &ProgramDir) -> BTreeMap<String, SystemTime> {
    let names = place.flags("downloads").into_iter();
    let time = |name: &String| {
        let path = place.path(format!("downloads/{}.gif", name.to_lowercase()));
        fs::metadata(path).unwrap().modified().unwrap()
    };
    names.map(|name| (name.clone(), time(&name))).collect()
}

#[test]
fn only_what_is_new_missing_or_was_touched_is_downloaded() {
    for mode in MODES {
        let place = ProgramDir::new();
        let args = ["b", "--mode", mode, "--json"];
        let first = place.run(&args).expect(0);
        assert_eq!((unchanged(&first), first.summary().ok), (0, 17));
        let before = written(&place);
        fs::remove_file(place.path("downloads/br.gif")).unwrap();
        fs::write(place.path("downloads/be.gif"), "GIF89a, by somebody else").unwrap();
        let second = place.run(&[&args[..], &["cn", "--update"]].concat()).expect(0);
        assert_eq!((unchanged(&second), second.summary().ok), (15, 18));
        for line in second.json() {
            let is_unchanged = line["unchanged"] == true;
            let Some(code) = line["code"].as_str().filter(|_| line["status"] == "ok") else {
                continue;
            };
            assert_eq!(is_unchanged, !["BE", "BR", "CN"].contains(&code), "{line}");
            assert!(line["bytes"].as_u64() > Some(100), "{line}");
            let after = written(&place)[code];
            assert_eq!(before.get(code) == Some(&after), is_unchanged, "{line}");
        }
        let told = place.run(&["b", "--mode", mode, "--update"]).expect(0).stdout;
        assert!(
            told.contains("\n0 flags downloaded.\n17 unchanged.\n9 not found: BC BK "),
            "{told}"
        );
        let told = place.run(&["be", "--mode", mode, "--update", "-v"]).expect(0).stdout;
        assert!(told.contains("\nBE unchanged\n"), "{told}");
        let log = place.run(&["logs", "--code", "be"]).expect(0).stdout;
        assert!(log.contains("BE unchanged in"), "{log}");
        assert!(
            place.run(&["be", "--mode", mode]).expect(0).stdout.contains("\n1 flag downloaded.")
        );
    }
}

/// A server that knows only dates, and notes the conditions that it was asked under.
struct DatedServer {
    port: u16,
    conditions: Arc<Mutex<Vec<String>>>,
    date: Arc<Mutex<&'static str>>,
}

impl DatedServer {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (conditions, date) =
            (Arc::default(), Arc::new(Mutex::new("Sun, 06 Nov 1994 08:49:37 GMT")));
        let dated = Self { port, conditions, date };
        let (conditions, date) = (Arc::clone(&dated.conditions), Arc::clone(&dated.date));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                answer(&client, &conditions, *date.lock().unwrap());
            }
        });
        dated
    }
}

fn answer(mut client: &TcpStream, conditions: &Mutex<Vec<String>>, date: &str) {
    let lines = BufReader::new(client).lines().map_while(Result::ok);
    let asked = lines
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.to_lowercase().starts_with("if-").then(|| line[..].to_owned()));
    let has_changed = asked.as_ref().is_none_or(|asked| !asked.ends_with(date));
    conditions.lock().unwrap().extend(asked);
    let head = match has_changed {
        true => format!("200 OK\r\nContent-Length: 35\r\nLast-Modified: {date}"),
        false => "304 Not Modified".to_owned(),
    };
    let _ = client.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes());
    if has_changed {
        let gif =
            b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
        let _ = client.write_all(gif);
    }
}

#[test]
fn a_server_that_knows_only_dates_will_do() {
    let server = DatedServer::start();
    let place = ProgramDir::new();
    let url = format!("http://127.0.0.1:{}/flags", server.port);
    let args = ["br", "-s", &url, "--update", "--json"];
    let run = || unchanged(&place.run(&args).expect(0));
    assert_eq!(run(), 0);
    assert_eq!(server.conditions.lock().unwrap().len(), 0, "nothing is known of it");
    assert_eq!(run(), 1);
    *server.date.lock().unwrap() = "Mon, 07 Nov 1994 08:49:37 GMT";
    assert_eq!(run(), 0);
    assert_eq!(run(), 1);
    // What another server said does not count.
    let other = DatedServer::start();
    let url = format!("http://127.0.0.1:{}/flags", other.port);
    assert_eq!(unchanged(&place.run(&["br", "-s", &url, "--update", "--json"]).expect(0)), 0);
    assert_eq!(other.conditions.lock().unwrap().len(), 0);
    assert_eq!(run(), 0, "the file is the other server's by now");
}
