//! Servers that run with a configuration of docs/hosts.md, as it stands there; only their addresses and the
//! directory of their data come from the command line.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use procession_nats::ConnectSettings;
use tempfile::TempDir;

use crate::harness::eventually;
use crate::place::{self, find_server};

const DOCUMENT: &str = include_str!("../../../../docs/hosts.md");
/// Certificates and keys of the tests.
const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls");

/// A nats-server with a configuration of the document.
pub(crate) struct ConfiguredServer {
    dir: TempDir,
    keeper: Child,
    port: u16,
}

/// The block of the document whose first line begins with this.
pub(crate) fn documented(begins: &str) -> &'static str {
    let start = DOCUMENT.find(&format!("```text\n{begins}")).expect("a configuration") + 8;
    let rest = &DOCUMENT[start..];
    &rest[..rest.find("```\n").expect("its end")]
}

/// Each test that the document names is one of these.
pub(crate) fn assert_documented_tests(names: &[String]) {
    let (_, table) = DOCUMENT.split_once("## What is tested").expect("a table");
    let is_test = |text: &&str| text.contains("::") && !text.contains(' ');
    let named: Vec<_> = table.split('`').skip(1).step_by(2).filter(is_test).collect();
    assert!(named.len() > 30, "{named:?}");
    let missing: Vec<_> =
        named.iter().filter(|named| !names.iter().any(|name| name == *named)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

pub(crate) fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("an address").port()
}

impl ConfiguredServer {
    /// Starts it on this machine, in the directory of the certificates.
    pub(crate) fn start(config: &str, port: u16, more: &[&str]) -> Self {
        Self::start_at("127.0.0.1", config, port, more)
    }

    pub(crate) fn start_at(address: &str, config: &str, port: u16, more: &[&str]) -> Self {
        find_server();
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("server.conf");
        std::fs::write(&file, config).expect("a configuration");
        let (store, log) = (dir.path().join("store"), dir.path().join("log"));
        let mut role = format!("configured -c {} -a {address} -p {port}", file.display());
        role += &format!(" -sd {} -l {}", store.display(), log.display());
        more.iter().for_each(|more| role += &format!(" {more}"));
        let mut keeper = place::role(&role);
        let mut line = String::new();
        let output = keeper.stdout.as_mut().expect("an output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let server = Self { dir, keeper, port };
        eventually("a server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        server
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A file with a seed.
    pub(crate) fn seed_file(&self, seed: &str) -> PathBuf {
        let path = self.path(&seed[..12]);
        std::fs::write(&path, format!("{seed}\n")).expect("a seed");
        path
    }
}

impl Drop for ConfiguredServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

pub(crate) fn tls(name: &str) -> PathBuf {
    Path::new(TLS).join(name)
}

/// With the certificates of the tests.
pub(crate) fn with_tls(url: &str) -> ConnectSettings {
    ConnectSettings::new(url)
        .root_certificate(tls("ca.pem"))
        .client_certificate(tls("client.pem"), tls("client.key"))
}

/// Keeps a server until its standard input ends.
pub(crate) fn play_if_asked() {
    let Some(arguments) = place::asked() else { return };
    let [role, arguments @ ..] = &arguments[..] else { return };
    if role != "configured" {
        return;
    }
    let program = find_server().canonicalize().expect("a program");
    place::keep_server(Command::new(program).args(arguments).current_dir(TLS));
}
