//! The HTTP client and its settings.
//!
//! One agent serves many requests, since it keeps the connections that later ones use.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::http::Uri;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Proxy};

use super::codes::Code;
use super::fetch_error::FetchLimits;
use super::lookup::{self, Lookup};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchSettings {
    /// The server, without a trailing slash; `/br/br.gif` is appended.
    pub base_url: String,
    /// The most time for one try, from resolving the host name to the last byte of the body,
    /// redirects included.
    pub timeout: Duration,
    /// Further tries after the first one, when it fails in a way that may pass.
    pub retries: u32,
    /// The largest body accepted, in bytes.
    pub max_bytes: usize,
    /// Whether the environment's proxy (`HTTPS_PROXY` and the like) is honoured. A loopback
    /// server is always reached directly.
    pub proxy: bool,
    /// The name of the server, wherever it listens. Its validators are kept under this name.
    pub server: String,
    /// The most requests at once in this process, and the most idle connections that are kept.
    pub connections: usize,
}

impl FetchSettings {
    /// The usual settings for a server: 10 s, no retries, 10 MB, proxies honoured, one connection.
    pub fn new(base_url: impl Into<String>) -> Self {
        let base_url = base_url.into();
        FetchSettings {
            server: base_url.clone(),
            base_url,
            timeout: Duration::from_secs(10),
            retries: 0,
            max_bytes: 10_000_000,
            proxy: true,
            connections: 1,
        }
    }

    /// The URL of a flag, `{base}/{cc}/{cc}.gif`.
    pub fn url(&self, code: Code) -> String {
        let cc = code.lower();
        format!("{}/{cc}/{cc}.gif", self.base_url)
    }

    /// The limits, as error messages quote them.
    pub(super) fn limits(&self) -> FetchLimits {
        FetchLimits {
            request: self.timeout.min(LONGEST_TIMEOUT),
            connect: self.timeout.min(CONNECT_LIMIT),
            bytes: self.max_bytes,
        }
    }
}

/// Makes the HTTP client. One is enough for a process: it is cheap to clone, and clones share
/// their connections.
pub fn agent(settings: &FetchSettings) -> Agent {
    let proxied = settings.proxy && !is_loopback(&settings.base_url);
    let limits = settings.limits();
    let config = Agent::config_builder()
        // The status and the headers of an error response are needed.
        .http_status_as_error(false)
        // Followed by redirect.rs.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(limits.request))
        .timeout_connect(Some(limits.connect))
        .input_buffer_size(INPUT_BUFFER)
        .output_buffer_size(OUTPUT_BUFFER + settings.base_url.len())
        .max_idle_connections(settings.connections.max(1))
        .max_idle_connections_per_host(settings.connections.max(1))
        .proxy(if proxied { Proxy::try_from_env() } else { None })
        .user_agent(concat!("procession/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Lookup::default())
}

fn is_loopback(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
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
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://example.org", "http://localhost.example.org", "http://10.0.0.1", "x"] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn the_url_of_a_flag_has_its_code_in_lower_case() {
        let settings = FetchSettings::new("http://localhost/flags");
        assert_eq!(settings.url("BR".parse().unwrap()), "http://localhost/flags/br/br.gif");
    }

    #[test]
    fn settings_are_the_same_after_json() {
        let settings = FetchSettings::new("http://localhost/flags");
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<FetchSettings>(&json).unwrap(), settings);
    }

    #[test]
    fn the_loopback_agent_has_no_proxy_and_keeps_its_connections() {
        let agent =
            agent(&FetchSettings { connections: 30, ..FetchSettings::new("http://127.0.0.1:1") });
        assert!(agent.config().proxy().is_none());
        assert_eq!(agent.config().max_idle_connections_per_host(), 30);
        assert_eq!(agent.config().timeouts().global, Some(Duration::from_secs(10)));
    }
}
