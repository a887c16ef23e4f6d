//! One flag over HTTP: a GET with a deadline, a size limit and retries.
//!
//! ```text
//!  fetch ─► try 1 ─► GET ─► redirects ─► status 200? ─► body, within the limit ─► whole GIF?
//!             ▲                                                                      │
//!             └──────── backoff, when the error may pass and tries are left ◄────────┘
//! ```
//!
//! Must never hang, hold more than one body in memory, or hand out a body that was not checked.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use serde::{Deserialize, Serialize};
use ureq::http::{Response, Uri, header::RETRY_AFTER};
use ureq::{Agent, Body, Proxy};

use super::codes::Code;
use super::fetch_error::{FetchError, Limits};
use super::{image, redirect};

/// A connection that does not come about in this time will not: a longer timeout is meant for
/// slow answers.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// More redirects than that are a loop.
const MAX_REDIRECTS: u32 = 10;

/// A server may ask for a pause before the next try. One longer than this is not waited for: the
/// next try then comes at our own pace.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Bodies of errors are read up to here, so that the connection can be used again.
const DRAIN_BYTES: u64 = 16 * 1024;

/// How to fetch. Small, so that it can travel with every task.
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
    /// How many requests run at once in this process: so many idle connections are kept.
    pub connections: usize,
}

impl FetchSettings {
    /// The usual settings for a server: 10 s, no retries, 10 MB, proxies honoured, one connection.
    pub fn new(base_url: impl Into<String>) -> Self {
        FetchSettings {
            base_url: base_url.into(),
            timeout: Duration::from_secs(10),
            retries: 0,
            max_bytes: 10_000_000,
            proxy: true,
            connections: 1,
        }
    }

    /// Where a flag lies, `{base}/{cc}/{cc}.gif`.
    pub fn url(&self, code: Code) -> String {
        let cc = code.lower();
        format!("{}/{cc}/{cc}.gif", self.base_url)
    }

    fn limits(&self) -> Limits {
        Limits {
            request: self.timeout,
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
    Agent::config_builder()
        // An error status is an answer like any other: we want its code and its headers.
        .http_status_as_error(false)
        // See redirect.rs.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(limits.request))
        .timeout_connect(Some(limits.connect))
        .max_idle_connections(settings.connections.max(1))
        .max_idle_connections_per_host(settings.connections.max(1))
        .proxy(if proxied { Proxy::try_from_env() } else { None })
        .user_agent(concat!("procession/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// What became of a fetch.
#[derive(Debug)]
pub struct Fetched {
    /// The flag, checked to be a whole GIF; or why there is none.
    pub result: Result<Vec<u8>, FetchError>,
    /// The status of the last answer, if the last try got one.
    pub http_status: Option<u16>,
    /// How many requests were tried, 1 or more (redirects do not count).
    pub attempts: u32,
}

/// Fetches the flag of `code`, trying again as `settings` allow. Blocks for at most
/// `timeout * (1 + retries)` and the pauses between.
pub fn fetch(agent: &Agent, settings: &FetchSettings, code: Code) -> Fetched {
    let mut backoff = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_factor(2.0)
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(settings.retries as usize)
        .with_jitter()
        .build();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (result, answer) = try_once(agent, settings, code, attempts);
        let pause = match &result {
            Err(error) if error.retryable() => backoff.next(),
            _ => None,
        };
        let Some(pause) = pause else {
            return Fetched {
                result,
                http_status: answer.status,
                attempts,
            };
        };
        std::thread::sleep(answer.retry_after.unwrap_or_default().max(pause));
    }
}

/// What is told of an answer besides its body.
#[derive(Default)]
struct Answer {
    status: Option<u16>,
    retry_after: Option<Duration>,
}

fn try_once(
    agent: &Agent,
    settings: &FetchSettings,
    code: Code,
    attempt: u32,
) -> (Result<Vec<u8>, FetchError>, Answer) {
    let mut response = match get(agent, settings, &settings.url(code), attempt) {
        Ok(response) => response,
        Err(Refused { error, status }) => {
            return (
                Err(error),
                Answer {
                    status,
                    retry_after: None,
                },
            );
        }
    };
    let status = response.status();
    let answer = Answer {
        status: Some(status.as_u16()),
        retry_after: retry_after(&response),
    };
    if status != ureq::http::StatusCode::OK {
        drain(&mut response);
        return (Err(FetchError::from_status(status)), answer);
    }
    let result = body(&mut response, settings).and_then(|bytes| {
        image::check(&bytes)
            .map(|()| bytes)
            .map_err(FetchError::from)
    });
    (result, answer)
}

/// No final answer: with the status of the last redirect, if there was one.
struct Refused {
    error: FetchError,
    status: Option<u16>,
}

/// Sends the request and follows redirects, all within one deadline.
fn get(
    agent: &Agent,
    settings: &FetchSettings,
    url: &str,
    attempt: u32,
) -> Result<Response<Body>, Refused> {
    let deadline = Instant::now() + settings.timeout;
    let mut status = None;
    let mut uri: Uri = url.parse().map_err(|error| {
        let error = FetchError::Protocol(format!("{url} is no URL: {error}"));
        Refused { error, status }
    })?;
    for _ in 0..=MAX_REDIRECTS {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Refused {
                error: FetchError::Timeout(settings.timeout),
                status,
            });
        }
        let mut response = agent
            .get(&uri)
            .header("x-attempt", attempt)
            .config()
            .timeout_global(Some(left))
            .build()
            .call()
            .map_err(|error| {
                let error = FetchError::before_answer(error, &settings.limits());
                Refused { error, status }
            })?;
        let Some(next) = redirect::target(&uri, &response) else {
            return Ok(response);
        };
        status = Some(response.status().as_u16());
        drain(&mut response);
        uri = next;
    }
    Err(Refused {
        error: FetchError::TooManyRedirects(MAX_REDIRECTS),
        status,
    })
}

fn body(response: &mut Response<Body>, settings: &FetchSettings) -> Result<Vec<u8>, FetchError> {
    let limit = settings.max_bytes as u64;
    if response
        .body()
        .content_length()
        .is_some_and(|length| length > limit)
    {
        return Err(FetchError::TooLarge {
            limit: settings.max_bytes,
        });
    }
    response
        .body_mut()
        .with_config()
        .limit(limit)
        .read_to_vec()
        .map_err(|error| FetchError::in_body(error, &settings.limits()))
}

/// Reads away the body of an answer whose status says it all. What fails here costs only the
/// connection.
fn drain(response: &mut Response<Body>) {
    let _ = response
        .body_mut()
        .with_config()
        .limit(DRAIN_BYTES)
        .read_to_vec();
}

/// The pause that the server asks for, if it is given in seconds and not too long.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds)).filter(|pause| *pause <= LONGEST_RETRY_AFTER)
}

fn is_loopback(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address
            .parse()
            .is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
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
        for url in [
            "http://example.org",
            "http://localhost.example.org",
            "http://10.0.0.1",
            "x",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn a_flag_lies_under_its_lower_case_code() {
        let settings = FetchSettings::new("http://localhost/flags");
        assert_eq!(
            settings.url("BR".parse().unwrap()),
            "http://localhost/flags/br/br.gif"
        );
    }

    #[test]
    fn settings_travel() {
        let settings = FetchSettings::new("http://localhost/flags");
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(
            serde_json::from_str::<FetchSettings>(&json).unwrap(),
            settings
        );
    }

    #[test]
    fn the_loopback_agent_has_no_proxy_and_keeps_its_connections() {
        let agent = agent(&FetchSettings {
            connections: 30,
            ..FetchSettings::new("http://127.0.0.1:1")
        });
        assert!(agent.config().proxy().is_none());
        assert_eq!(agent.config().max_idle_connections_per_host(), 30);
        assert_eq!(
            agent.config().timeouts().global,
            Some(Duration::from_secs(10))
        );
    }

    #[test]
    fn a_sane_retry_after_is_honoured() {
        let pause = |value: &str| {
            let response = Response::builder().header(RETRY_AFTER, value);
            retry_after(&response.body(Body::builder().data("")).unwrap())
        };
        assert_eq!(pause("2"), Some(Duration::from_secs(2)));
        assert_eq!(pause("86400"), None);
        assert_eq!(pause("Fri, 31 Dec 1999 23:59:59 GMT"), None);
        assert_eq!(pause("-1"), None);
    }
}
