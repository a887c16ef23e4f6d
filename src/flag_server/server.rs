//! Starts a server in a thread of its own and stops it.
//!
//! A server ends with its [`FlagServer`], at once: requests that are still delayed get no response.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime;
use tokio::sync::oneshot;

use procession_os::threads::ThreadSpec;

use super::faults::{DEFAULT_SEED, Faults, ServerKind};
use super::site::{RequestHook, RequestInfo, ServerState, router};

/// How many connections may wait to be accepted. A thousand clients that start together must not
/// meet a full queue, for then TCP makes them wait a second and more. The system may allow less.
const BACKLOG: u32 = 4096;

/// A running server of flags; it stops when dropped.
///
/// ```
/// use procession_cli::flag_server::{FlagServer, ServerKind};
///
/// let server = FlagServer::builder(ServerKind::Local).start()?;
/// println!("flags at {}/br/br.gif", server.base_url());
/// # Ok::<(), procession_cli::flag_server::StartError>(())
/// ```
pub struct FlagServer {
    addr: SocketAddr,
    site: Arc<ServerState>,
    /// The thread ends when this is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FlagServer {
    /// The settings of a server; [`FlagServerBuilder::start`] starts it.
    pub fn builder(kind: ServerKind) -> FlagServerBuilder {
        FlagServerBuilder {
            faults: Faults { kind, seed: DEFAULT_SEED },
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            on_request: None,
        }
    }

    /// The address that the server listens on, with its real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL for a client on this machine, such as `http://127.0.0.1:8001/flags`.
    pub fn base_url(&self) -> String {
        let ip = match self.addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}/flags", SocketAddr::new(ip, self.addr.port()))
    }

    /// The base URL for reports: `http://localhost:8001/flags` if it is this machine.
    pub fn shown_url(&self) -> String {
        let ip = self.addr.ip();
        if ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST {
            format!("http://localhost:{}/flags", self.addr.port())
        } else {
            self.base_url()
        }
    }

    /// The number of requests that were answered so far, with any status.
    pub fn served(&self) -> u64 {
        self.site.served()
    }
}

impl Drop for FlagServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for FlagServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlagServer")
            .field("addr", &self.addr)
            .field("served", &self.served())
            .finish_non_exhaustive()
    }
}

/// A server that is not running yet.
#[must_use = "the server runs only after `start`"]
pub struct FlagServerBuilder {
    faults: Faults,
    addr: SocketAddr,
    on_request: Option<RequestHook>,
}

impl FlagServerBuilder {
    /// Where to listen; port 0 takes a free one. Default: `127.0.0.1:0`.
    pub fn addr(mut self, addr: SocketAddr) -> Self {
        self.addr = addr;
        self
    }

    /// Chooses the faults of the ERROR server. Default: [`DEFAULT_SEED`].
    pub fn seed(mut self, seed: u64) -> Self {
        self.faults.seed = seed;
        self
    }

    /// Calls `hook` for each request, when its answer is ready to be sent.
    ///
    /// It runs in the server's only thread, so it must be fast.
    pub fn on_request(mut self, hook: impl Fn(&RequestInfo<'_>) + Send + Sync + 'static) -> Self {
        self.on_request = Some(Box::new(hook));
        self
    }

    /// Starts the server. It accepts requests when this returns.
    ///
    /// # Errors
    ///
    /// If it cannot listen, most often because the address is in use, or if the system has no thread
    /// or no descriptor left.
    pub fn start(self) -> Result<FlagServer, StartError> {
        let FlagServerBuilder { faults, addr, on_request } = self;
        let kind = faults.kind;
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| StartError::Runtime { kind, source })?;
        let cannot_listen = |source| StartError::Listen { kind, addr, source };
        let listener = {
            let _runtime = runtime.enter();
            listen(addr).map_err(cannot_listen)?
        };
        let addr = listener.local_addr().map_err(cannot_listen)?;
        let site = Arc::new(ServerState::new(faults, on_request));
        let app = router(site.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = ThreadSpec::new(format!("flag server {kind}"));
        let thread = thread.start_with_retries(move || {
            runtime.spawn(procession_dashboard::serve(listener, app));
            let _ = runtime.block_on(stopped);
            // The runtime ends here, and with it all connections.
        });
        let thread = thread.map_err(|source| StartError::Thread { kind, source })?;
        Ok(FlagServer { addr, site, stop: Some(stop), thread: Some(thread) })
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // On Unix: take over a port whose last server has just ended. On Windows the same option would
    // let two servers share a port.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Why a server was not started.
#[derive(Debug, Error)]
pub enum StartError {
    /// It could not listen.
    #[error("failed to start the {kind} server on {addr}{}", advice(source))]
    Listen {
        /// Which server.
        kind: ServerKind,
        /// The address.
        addr: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// Its thread could not be started.
    #[error("no thread can be started for the {kind} server")]
    Thread {
        /// Which server.
        kind: ServerKind,
        /// The error of the system.
        source: io::Error,
    },
    /// The event loop of its thread could not be made.
    #[error("failed to start the {kind} server")]
    Runtime {
        /// Which server.
        kind: ServerKind,
        /// The error of the system.
        source: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (choose another port, or end the program that listens there)",
        io::ErrorKind::PermissionDenied => " (choose a port above 1023)",
        _ => "",
    }
}
