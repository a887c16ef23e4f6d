//! Proxies and certificates, by the usual environment variables.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::programs::{ProgramDir, RunningProgram, skipped, wait_until};
use crate::scripted_server::DEADLINE;

/// A proxy that connects nobody: it answers itself, and keeps the first line of each request.
struct TestProxy {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl TestProxy {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let its = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let its = Arc::clone(&its);
                thread::spawn(move || serve(stream, &its).ok());
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut line = first.clone();
        while !line.trim_end().is_empty() {
            line.clear();
            reader.read_line(&mut line)?;
        }
        if first.is_empty() {
            return Ok(());
        }
        let is_tunnel = first.starts_with("CONNECT ");
        seen.lock().unwrap().push(first.trim_end().to_owned());
        // In the tunnel it is the server as well.
        let answer: &[u8] = match is_tunnel {
            true => b"HTTP/1.1 200 Connected\r\n\r\n",
            false => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nproxy",
        };
        stream.write_all(answer)?;
    }
}

/// Runs `coordinator fetch URL` with these variables, and gives what came.
fn fetched(url: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let place = ProgramDir::new();
    let mut command = place.coordinator(&["fetch", url, "--json", "--timeout", "5"]);
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env_remove("SSL_CERT_DIR").env_remove("SSL_CERT_FILE").envs(variables.iter().copied());
    let ran = RunningProgram::start(&mut command).wait();
    match ran.summary().ok {
        1 => Ok(String::from_utf8(place.files("downloads")["file"].clone()).unwrap()),
        _ => Err(ran.errors().remove("file").unwrap_or_default()),
    }
}

#[test]
fn a_proxy_is_used_if_a_variable_names_it() {
    // Reserved for names that never exist.
    let url = "http://server.invalid/file";
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let proxy = TestProxy::start();
        assert_eq!(fetched(url, &[(name, &proxy.url)]).as_deref(), Ok("proxy"), "{name}");
        assert!(proxy.seen()[0].contains("server.invalid"), "{:?}", proxy.seen());
    }
    let proxy = TestProxy::start();
    // It answers the begin of TLS with nothing that is TLS.
    assert!(fetched("https://server.invalid/file", &[("HTTPS_PROXY", &proxy.url)]).is_err());
    assert_eq!(proxy.seen()[0], "CONNECT server.invalid:443 HTTP/1.1");
}

#[test]
fn no_proxy_is_used_for_hosts_without_one_and_for_this_machine() {
    let proxy = TestProxy::start();
    let variables = [("ALL_PROXY", &*proxy.url), ("NO_PROXY", ".invalid")];
    let error = fetched("http://server.invalid/file", &variables).unwrap_err();
    assert!(error.starts_with("connection error"), "{error}");
    let server = TestProxy::start();
    for url in [server.url.clone(), server.url.replace("127.0.0.1", "localhost")] {
        assert_eq!(fetched(&format!("{url}/file"), &variables[..1]).as_deref(), Ok("proxy"));
    }
    assert!(proxy.seen().is_empty(), "{:?}", proxy.seen());
}

#[test]
fn variables_of_no_use_are_refused_where_they_matter() {
    let place = ProgramDir::new();
    let run = |url: &str, variable: &str, value: &str| {
        let mut command = place.coordinator(&["fetch", url, "--dry-run"]);
        for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        RunningProgram::start(command.env(variable, value)).wait()
    };
    let refused = run("http://server.invalid/", "HTTP_PROXY", "x:y:z").expect(2);
    assert!(refused.stderr.contains("HTTP_PROXY must be the URL of a proxy"), "{refused:?}");
    let refused = run("https://localhost/", "SSL_CERT_FILE", "missing.pem").expect(2);
    assert!(refused.stderr.contains("SSL_CERT_FILE must name certificates"), "{refused:?}");
    // This machine needs no proxy, and http no certificates.
    run("http://localhost/", "HTTP_PROXY", "x:y:z").expect(0);
    run("http://server.invalid/", "SSL_CERT_FILE", "missing.pem").expect(0);
}

/// A server with a certificate of its own for `localhost`, from Python, that serves `dir`.
const TLS_SERVER: &str = "\
import http.server, ssl, sys
server = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('cert.pem', 'key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()";

fn is_certificate_made(dir: &Path) -> bool {
    let args = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 3 -subj /CN=localhost \
                -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE";
    let made = Command::new("openssl").args(args.split(' ')).current_dir(dir).output();
    made.is_ok_and(|made| made.status.success())
}

#[test]
fn a_server_is_trusted_by_the_certificates_that_variables_name() {
    let place = ProgramDir::new();
    if !is_certificate_made(&place.path("")) {
        return skipped("there is no openssl that makes a certificate");
    }
    place.file("file", "over TLS");
    let python = Command::new("python3")
        .args(["-c", TLS_SERVER])
        .current_dir(place.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut python) = python else { return skipped("there is no python3") };
    let mut out = BufReader::new(python.stdout.take().unwrap());
    let mut port = String::new();
    out.read_line(&mut port).unwrap();
    let url = format!("https://localhost:{}/file", port.trim());
    let results = (!port.trim().is_empty()).then(|| {
        let (file, dir) = (place.path("cert.pem"), place.path("certificates"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::copy(&file, dir.join("one.pem")).unwrap();
        [
            fetched(&url, &[]),
            fetched(&url, &[("SSL_CERT_FILE", file.to_str().unwrap())]),
            fetched(&url, &[("SSL_CERT_DIR", dir.to_str().unwrap())]),
        ]
    });
    python.kill().unwrap();
    wait_until("the server ends", || python.try_wait().unwrap().is_some());
    let _ = out.read_to_string(&mut port);
    let Some([unknown, by_file, by_dir]) = results else {
        return skipped("this python3 has no TLS");
    };
    assert!(unknown.as_ref().is_err_and(|error| error.starts_with("bad answer: ")), "{unknown:?}");
    assert_eq!((by_file.as_deref(), by_dir.as_deref()), (Ok("over TLS"), Ok("over TLS")));
}
