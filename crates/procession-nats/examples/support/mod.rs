//! A nats-server and agents on this machine, for the examples that measure.

use std::error::Error;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use procession::{ProcessPool, Registry};
use procession_nats::{Agent, ConnectSettings};

/// The address of the server of an agent, and its slots.
const AGENT: &str = "MEASURED_AGENT";

/// A process that is killed at the end.
pub(crate) struct KilledAtEnd(Child);

impl Drop for KilledAtEnd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts the server of the variable `NATS_SERVER`, or that on `PATH`, with file storage in this directory.
pub(crate) fn start_server(
    dir: &Path,
    port: u16,
    more: &[&str],
) -> Result<KilledAtEnd, Box<dyn Error>> {
    let program = env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned());
    let server = Command::new(program)
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
        .arg(dir)
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let server = KilledAtEnd(server);
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline {
            return Err("the nats-server does not answer".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

/// Starts this program as an agent with one worker.
pub(crate) fn start_agent(url: &str, slots: usize, lease: Duration) -> io::Result<KilledAtEnd> {
    let mut command = Command::new(env::current_exe()?);
    let arguments = format!("{url} {slots} {}", lease.as_millis());
    command.env(AGENT, arguments).stdin(Stdio::piped()).spawn().map(KilledAtEnd)
}

/// If this program is to be an agent, it is one until its standard input ends, with the program that has started it.
pub(crate) fn be_agent_if_asked() -> Result<(), Box<dyn Error>> {
    let Ok(arguments) = env::var(AGENT) else { return Ok(()) };
    let arguments: Vec<_> = arguments.split(' ').collect();
    let [url, slots, lease_ms] = arguments[..] else {
        return Err("a server, slots, a lease".into());
    };
    let pool = ProcessPool::builder().workers(1).build()?;
    let _agent = Agent::builder(ConnectSettings::new(url), Registry::collected())
        .slots(slots.parse()?)
        .lease(Duration::from_millis(lease_ms.parse()?))
        .start(pool)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    std::process::exit(0);
}
