//! What can go wrong with one flag, typed, and whether another try may help.
//!
//! Must never lose what the user needs to act: messages are short but name the cause.

use std::io;
use std::time::Duration;

use thiserror::Error;

use super::image::InvalidGif;
use super::save::SaveError;

/// Why a flag was not downloaded.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The server answered 404: there is no such flag.
    #[error("not found")]
    NotFound,
    /// The server answered 304, as it was asked to: the flag is the one that we have.
    #[error("not modified")]
    NotModified,
    /// The server answered neither 200 nor 404.
    #[error("HTTP {status} - {reason}")]
    Http {
        /// The status code.
        status: u16,
        /// Its canonical reason phrase, or `Unknown DownloadStatus`. What the server itself said is not
        /// kept by the HTTP client.
        reason: &'static str,
    },
    /// No connection, or one that broke before the answer began.
    #[error("connection error: {0}")]
    Connection(String),
    /// The request took longer than it may.
    #[error("timed out after {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The connection ended before the body did.
    #[error("the body was cut short: the connection closed before all of it came")]
    CutShort,
    /// The body is larger than allowed.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The most that is accepted, in bytes.
        limit: usize,
    },
    /// The body is no whole GIF.
    #[error("not a GIF image: {0}")]
    InvalidGif(#[from] InvalidGif),
    /// The server sent us on and on.
    #[error("too many redirects: gave up after {0}")]
    TooManyRedirects(u32),
    /// The answer is not HTTP as we know it, or the server's identity was not proven.
    #[error("bad answer: {0}")]
    Protocol(String),
    /// The flag came, but could not be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
}

impl FetchError {
    /// Whether the same request may succeed a little later: after connection errors (a body cut
    /// short is one), timeouts, 429 and 5xx.
    pub fn is_retryable(&self) -> bool {
        match self {
            FetchError::Connection(_) | FetchError::Timeout(_) | FetchError::CutShort => true,
            FetchError::Http { status, .. } => *status == 429 || *status >= 500,
            FetchError::NotFound
            | FetchError::NotModified
            | FetchError::TooLarge { .. }
            | FetchError::InvalidGif(_)
            | FetchError::TooManyRedirects(_)
            | FetchError::Protocol(_)
            | FetchError::Save(_) => false,
        }
    }

    /// The same for all flags that it can befall: what errors are grouped by. `None` where the
    /// message is no other for each flag.
    pub fn cause(&self) -> Option<String> {
        match self {
            FetchError::Save(error) => error.cause(),
            FetchError::InvalidGif(InvalidGif::CutShort(_)) => {
                Some("not a GIF image: cut short".into())
            }
            _ => None,
        }
    }

    /// The error for a status other than 200.
    pub(super) fn from_status(status: ureq::http::StatusCode) -> Self {
        if status == ureq::http::StatusCode::NOT_FOUND {
            return FetchError::NotFound;
        }
        FetchError::Http {
            status: status.as_u16(),
            reason: status.canonical_reason().unwrap_or("Unknown Status"),
        }
    }

    /// The error for a request that got no answer.
    pub(super) fn before_answer(error: ureq::Error, limits: &FetchLimits) -> Self {
        match error {
            ureq::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                FetchError::Connection("the server closed the connection without an answer".into())
            }
            other => Self::from_client(other, limits),
        }
    }

    /// The error for an answer whose body did not come.
    pub(super) fn in_body(error: ureq::Error, limits: &FetchLimits) -> Self {
        match error {
            ureq::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => FetchError::CutShort,
            other => Self::from_client(other, limits),
        }
    }

    fn from_client(error: ureq::Error, limits: &FetchLimits) -> Self {
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect) => FetchError::Timeout(limits.connect),
            ureq::Error::Timeout(_) => FetchError::Timeout(limits.request),
            // TLS refusals come as invalid data. Another try would meet the same certificate.
            ureq::Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => {
                FetchError::Protocol(e.to_string())
            }
            ureq::Error::Io(e) => FetchError::Connection(io_text(&e)),
            ureq::Error::HostNotFound => FetchError::Connection("host not found".into()),
            ureq::Error::ConnectionFailed => FetchError::Connection("no connection".into()),
            ureq::Error::ConnectProxyFailed(why) => FetchError::Connection(format!("proxy: {why}")),
            ureq::Error::BodyExceedsLimit(_) => FetchError::TooLarge { limit: limits.bytes },
            other => FetchError::Protocol(other.to_string()),
        }
    }
}

/// The limits that error messages quote.
pub(super) struct FetchLimits {
    pub(super) request: Duration,
    pub(super) connect: Duration,
    pub(super) bytes: usize,
}

/// An I/O error in our house style: `connection refused`, not `Connection refused (os error 111)`.
fn io_text(error: &io::Error) -> String {
    let kind = error.kind().to_string();
    let kind_says_it = error.raw_os_error().is_some() && kind != "uncategorized error";
    if kind_says_it { kind } else { error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::StatusCode;

    const LIMITS: FetchLimits = FetchLimits {
        request: Duration::from_secs(10),
        connect: Duration::from_millis(1500),
        bytes: 10_000_000,
    };

    fn status(code: u16) -> FetchError {
        FetchError::from_status(StatusCode::from_u16(code).unwrap())
    }

    #[test]
    fn statuses_read_as_people_know_them() {
        assert_eq!(status(404).to_string(), "not found");
        assert_eq!(status(503).to_string(), "HTTP 503 - Service Unavailable");
        assert_eq!(status(418).to_string(), "HTTP 418 - I'm a teapot");
        assert_eq!(status(599).to_string(), "HTTP 599 - Unknown Status");
        assert_eq!(status(204).to_string(), "HTTP 204 - No Content");
    }

    #[test]
    fn only_what_may_pass_is_retried() {
        let no = [200, 204, 304, 400, 403, 404, 410];
        let yes = [429, 500, 502, 503, 504, 599];
        assert!(no.into_iter().all(|code| !status(code).is_retryable()));
        assert!(yes.into_iter().all(|code| status(code).is_retryable()));
        assert!(FetchError::CutShort.is_retryable());
        assert!(!FetchError::InvalidGif(InvalidGif::Empty).is_retryable());
        assert!(!FetchError::TooLarge { limit: 1 }.is_retryable());
    }

    #[test]
    fn the_system_is_quoted_in_house_style() {
        let refused = io::Error::from_raw_os_error(111).into();
        let error = FetchError::before_answer(refused, &LIMITS);
        assert_eq!(error.to_string(), "connection error: connection refused");
        let eof = || io::Error::from(io::ErrorKind::UnexpectedEof).into();
        let early = FetchError::before_answer(eof(), &LIMITS);
        assert!(early.to_string().starts_with("connection error: the server closed"));
        assert!(matches!(FetchError::in_body(eof(), &LIMITS), FetchError::CutShort));
    }

    #[test]
    fn timeouts_say_how_long() {
        let whole = FetchError::in_body(ureq::Error::Timeout(ureq::Timeout::Global), &LIMITS);
        assert_eq!(whole.to_string(), "timed out after 10 s");
        let connect =
            FetchError::before_answer(ureq::Error::Timeout(ureq::Timeout::Connect), &LIMITS);
        assert_eq!(connect.to_string(), "timed out after 1.5 s");
    }
}
