//! The HTTP client and its settings.
//!
//! One agent serves many requests, since it keeps the connections that later ones use.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fs, io};

use serde::{Deserialize, Serialize};
use ureq::http::{HeaderName, HeaderValue, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Proxy};

use super::fetch_error::FetchLimits;
use super::lookup::{self, Lookup};
use super::rate::RateLimit;
use super::read;

/// The most time for connecting. A longer timeout is meant for slow responses.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The longest timeout. The client adds it to the time of day, which overflows for much more.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// The client clears its buffers when a connection begins, so they should not be larger than what
/// they must hold: the longest head of a response that it accepts and some more, and the head of a
/// request, without the base URL.
const INPUT_BUFFER: usize = 68 * 1024;
const OUTPUT_BUFFER: usize = 16 * 1024;

/// How to fetch. Small, since every task carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FetchSettings {
    /// The most time for one try, from resolving the host name to the last byte of the body,
    /// redirects included.
    pub timeout: Duration,
    /// Further tries after the first one, when it fails in a way that may pass.
    pub retries: u32,
    /// The largest body accepted, in bytes; `None` for any.
    pub max_bytes: Option<u64>,
    /// Whether the environment's proxy (`HTTPS_PROXY` and the like) is honoured. A loopback
    /// server is always reached directly.
    pub proxy: bool,
    /// The name of the server, wherever it listens. The validators of its files are kept under this
    /// name, and those of others under their URLs.
    pub server: Option<String>,
    /// The most requests at once in this process, and the most idle connections that are kept.
    pub connections: usize,
    /// Headers of each request. A redirect to another server does not get them.
    pub headers: Vec<(String, String)>,
    /// The length of the longest URL, in bytes.
    pub longest_url: usize,
    /// The most requests per second over all processes, further tries included.
    pub rate: Option<RateLimit>,
}

impl Default for FetchSettings {
    /// 10 s, no retries, 10 MB, proxies honoured, one connection, URLs of up to 2 kB.
    fn default() -> Self {
        FetchSettings {
            timeout: Duration::from_secs(10),
            retries: 0,
            max_bytes: Some(10_000_000),
            proxy: true,
            server: None,
            connections: 1,
            headers: Vec::new(),
            longest_url: 2000,
            rate: None,
        }
    }
}

impl FetchSettings {
    /// The limits, as error messages quote them.
    pub(super) fn limits(&self) -> FetchLimits {
        FetchLimits {
            request: self.timeout.min(LONGEST_TIMEOUT),
            connect: self.timeout.min(CONNECT_LIMIT),
            bytes: self.max_bytes,
        }
    }
}

/// The HTTP client of a process, which keeps its connections.
///
/// The certificates of a system may be hundreds of files, so they are read before the first request that needs them.
#[derive(Debug)]
pub struct Client {
    plain: Option<Agent>,
    secure: OnceLock<Agent>,
    settings: FetchSettings,
}

impl Client {
    /// A client with these settings.
    pub fn new(settings: &FetchSettings) -> Self {
        // The way to a proxy may need certificates, too.
        let has_proxy = settings.proxy && Proxy::try_from_env().is_some();
        let plain = (!has_proxy).then(|| agent(settings, RootCerts::WebPki));
        Self { plain, secure: OnceLock::new(), settings: settings.clone() }
    }

    /// What sends a request to this URL.
    pub fn agent(&self, url: &Uri) -> &Agent {
        match &self.plain {
            Some(plain) if url.scheme_str() == Some("http") => plain,
            _ => self.secure.get_or_init(|| agent(&self.settings, root_certificates())),
        }
    }
}

fn agent(settings: &FetchSettings, root_certificates: RootCerts) -> Agent {
    let limits = settings.limits();
    let headers = settings.headers.iter().map(|(name, value)| name.len() + value.len() + 4);
    let head = OUTPUT_BUFFER + settings.longest_url + headers.sum::<usize>();
    let config = Agent::config_builder()
        // The status and the headers of an error response are needed.
        .http_status_as_error(false)
        // Followed by redirect.rs.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(limits.request))
        .timeout_connect(Some(limits.connect))
        .input_buffer_size(INPUT_BUFFER)
        .output_buffer_size(head)
        .max_idle_connections(settings.connections.max(1))
        .max_idle_connections_per_host(settings.connections.max(1))
        .proxy(if settings.proxy { Proxy::try_from_env() } else { None })
        // The file as the server has it.
        .accept_encoding("identity")
        .tls_config(TlsConfig::builder().root_certs(root_certificates).build())
        .user_agent(concat!("procession/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Lookup::default())
}

/// A variable of the environment that is no use to requests.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// It names no proxy. Its value may contain a password.
    #[error("{0} must be the URL of a proxy, such as http://proxy:3128")]
    Proxy(&'static str),
    /// It names a file or a directory that cannot be read.
    #[error("{variable} must name certificates that can be read: {}", path.display())]
    Unreadable {
        /// The variable.
        variable: &'static str,
        /// The path in it.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// Its file has no certificate.
    #[error("SSL_CERT_FILE must name a file with certificates in the form PEM: {}", .0.display())]
    NoCertificates(PathBuf),
}

/// Checks the variables that name proxies and certificates, as far as these URLs need them: without that,
/// requests would go without the proxy, and all servers be distrusted.
///
/// # Errors
///
/// One for the first variable that is of no use.
pub fn check_environment<'u>(urls: impl Iterator<Item = &'u str>) -> Result<(), EnvironmentError> {
    let (mut is_remote, mut has_tls) = (false, false);
    for uri in urls.filter_map(|url| url.parse::<Uri>().ok()) {
        has_tls |= uri.scheme_str() == Some("https");
        is_remote |= uri.scheme().is_some() && !is_loopback(&uri);
        if has_tls && is_remote {
            break;
        }
    }
    if is_remote {
        check_proxy(|name| env::var(name).ok())?;
    }
    if has_tls { check_certificates(named) } else { Ok(()) }
}

/// Checks the variable whose proxy is used: the first that is set.
fn check_proxy(value: impl Fn(&str) -> Option<String>) -> Result<(), EnvironmentError> {
    const NAMES: [&str; 6] =
        ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
    let is_set = |name: &&str| value(name).is_some_and(|value| !value.is_empty());
    let Some(name) = NAMES.into_iter().find(is_set) else { return Ok(()) };
    let proxy = Proxy::new(&value(name).unwrap_or_default());
    proxy.map(drop).map_err(|_| EnvironmentError::Proxy(name))
}

fn check_certificates(
    value: impl Fn(&'static str) -> Option<OsString>,
) -> Result<(), EnvironmentError> {
    let failed = |variable, path: &Path| {
        let path = path.to_owned();
        move |source| EnvironmentError::Unreadable { variable, path, source }
    };
    if let Some(file) = value("SSL_CERT_FILE").map(PathBuf::from) {
        let pem = read::file(&file, LONGEST_PEM).map_err(failed("SSL_CERT_FILE", &file))?;
        if certificates(&pem).is_empty() {
            return Err(EnvironmentError::NoCertificates(file));
        }
    }
    // It may name several directories, of which some need not exist.
    let dirs = value("SSL_CERT_DIR");
    let dirs: Vec<_> = dirs.iter().flat_map(env::split_paths).collect();
    let Some(first) = dirs.first() else { return Ok(()) };
    match dirs.iter().any(|dir| fs::read_dir(dir).is_ok()) {
        true => Ok(()),
        false => fs::read_dir(first).map(drop).map_err(failed("SSL_CERT_DIR", first)),
    }
}

/// The value of a variable that is set and not empty.
fn named(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The certificates that servers are checked by: those of the file that `SSL_CERT_FILE` names and of the
/// files in the directories that `SSL_CERT_DIR` names, or else those of Mozilla. A file that cannot be
/// read leaves none: connections then fail, and no server passes that should not.
fn root_certificates() -> RootCerts {
    let (file, dirs) = (named("SSL_CERT_FILE"), named("SSL_CERT_DIR"));
    if file.is_none() && dirs.is_none() {
        return RootCerts::WebPki;
    }
    let dirs: Vec<_> = dirs.iter().flat_map(env::split_paths).collect();
    let listed = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let files = listed.map(|entry| entry.path()).chain(file.map(PathBuf::from));
    let pems = files.filter_map(|file| read::file(&file, LONGEST_PEM).ok());
    RootCerts::from(pems.flat_map(|pem| certificates(&pem)).collect::<Vec<_>>())
}

/// The longest file of certificates that is read, in bytes. All of Mozilla's take 0.2 MiB.
const LONGEST_PEM: u64 = 16 << 20;

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    parse_pem(pem).filter_map(certificate).collect()
}

/// A header as typed: `Name: value`.
pub fn header(typed: &str) -> Option<(String, String)> {
    let (name, value) = typed.split_once(':')?;
    let (name, value) = (name.trim(), value.trim());
    HeaderName::from_bytes(name.as_bytes()).ok()?;
    HeaderValue::from_str(value).ok()?;
    Some((name.to_owned(), value.to_owned()))
}

pub(super) fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || lookup::address(&host).is_some_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_by_name_and_by_address() {
        for url in [
            "http://localhost:8001/flags",
            "http://LOCALHOST",
            "http://flags.localhost/",
            "http://127.0.0.1:1/flags",
            "http://127.1.2.3",
            "http://[::1]:8001/flags",
            "http://[::ffff:127.0.0.1]/",
        ] {
            assert!(is_loopback(&url.parse().unwrap()), "{url}");
        }
        for url in ["http://example.org", "http://localhost.example.org", "http://10.0.0.1", "x"] {
            assert!(!is_loopback(&url.parse().unwrap()), "{url}");
        }
    }

    #[test]
    fn variables_of_no_use_are_refused() {
        let proxy = |set: &'static [(&str, &str)]| {
            let value = move |name: &str| {
                let found = set.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            check_proxy(value).map_err(|error| error.to_string())
        };
        assert!(proxy(&[]).is_ok() && proxy(&[("HTTP_PROXY", "")]).is_ok());
        assert!(proxy(&[("HTTP_PROXY", "http://me:secret@proxy:3128")]).is_ok());
        // The first that is set is used.
        assert!(proxy(&[("HTTP_PROXY", "x:y:z"), ("ALL_PROXY", "http://proxy:1")]).is_ok());
        let error = proxy(&[("HTTP_PROXY", "me:secret:y")]).unwrap_err();
        assert!(error.starts_with("HTTP_PROXY must be") && !error.contains("secret"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).into_os_string();
        fs::write(path("none.pem"), "no certificate").unwrap();
        let refused = |variable: &'static str, value: OsString| {
            let set = |name: &str| (name == variable).then(|| value.clone());
            check_certificates(set).map_err(|error| error.to_string())
        };
        for (variable, file) in [
            ("SSL_CERT_FILE", "missing.pem"),
            ("SSL_CERT_FILE", "none.pem"),
            ("SSL_CERT_DIR", "missing"),
        ] {
            let error = refused(variable, path(file)).unwrap_err();
            assert!(error.starts_with(&format!("{variable} must name ")), "{error}");
            assert!(error.ends_with(file), "{error}");
        }
        assert!(refused("SSL_CERT_DIR", path("")).is_ok());
    }

    #[test]
    fn settings_are_the_same_after_json() {
        let rate = Some(RateLimit { file: "/tmp/rate".into(), per_second: 0.5 });
        let settings = FetchSettings { rate, ..FetchSettings::default() };
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<FetchSettings>(&json).unwrap(), settings);
    }

    #[test]
    fn a_client_keeps_its_connections_and_reads_certificates_when_it_needs_them() {
        let settings = FetchSettings { connections: 30, proxy: false, ..FetchSettings::default() };
        let client = Client::new(&settings);
        let (plain, secure) =
            ("http://localhost/a".parse().unwrap(), "https://localhost/a".parse().unwrap());
        client.agent(&plain);
        assert!(client.secure.get().is_none(), "no certificate was read");
        for url in [plain, secure] {
            let agent = client.agent(&url);
            assert_eq!(agent.config().max_idle_connections_per_host(), 30);
            assert_eq!(agent.config().timeouts().global, Some(Duration::from_secs(10)));
        }
    }

    #[test]
    fn a_header_is_a_name_a_colon_and_a_value() {
        let parsed = |typed| header(typed).map(|(name, value)| format!("{name}|{value}"));
        assert_eq!(parsed("X-Key:  a: b ").as_deref(), Some("X-Key|a: b"));
        assert_eq!(parsed("X-Empty:").as_deref(), Some("X-Empty|"));
        for bad in ["", "X-Key", ": x", "X Key: x", "X-Key: a\nb", "X-Key\r\nY: b"] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }
}
