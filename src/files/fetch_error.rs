//! The errors of the download of one file, and whether another try may help.

use std::error::Error as _;
use std::io;
use std::iter;
use std::time::Duration;

use thiserror::Error;

use super::image::InvalidGif;
use super::save::SaveError;

/// Why a flag was not downloaded.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The status is 404: there is no such flag.
    #[error("not found")]
    NotFound,
    /// The status is 304: the flag has not changed since the given validators.
    #[error("not modified")]
    NotModified,
    /// The status is neither 200 nor 404.
    #[error("HTTP {status} - {reason}")]
    Http {
        /// The status code.
        status: u16,
        /// Its canonical reason phrase, or `Unknown Status`. The HTTP client does not keep the
        /// server's own phrase.
        reason: &'static str,
    },
    /// No connection, or one that broke before the response began.
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
        limit: u64,
    },
    /// The body is no whole GIF.
    #[error("not a GIF image")]
    InvalidGif(#[from] InvalidGif),
    /// There were more redirects than allowed.
    #[error("too many redirects: gave up after {0}")]
    TooManyRedirects(u32),
    /// The response is not valid HTTP, or the server's certificate was refused.
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

    /// The error with its causes, in one line.
    pub fn message(&self) -> String {
        let causes = iter::successors(self.source(), |&error| error.source());
        causes.fold(self.to_string(), |message, cause| format!("{message}: {cause}"))
    }

    /// A text that is the same for all flags, by which errors are grouped. `None` where the message
    /// itself is the same.
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
                FetchError::Protocol(tls_text(&e))
            }
            ureq::Error::Io(e) => FetchError::Connection(io_text(&e)),
            ureq::Error::HostNotFound => FetchError::Connection("host not found".into()),
            ureq::Error::ConnectionFailed => FetchError::Connection("no connection".into()),
            ureq::Error::ConnectProxyFailed(why) => FetchError::Connection(format!("proxy: {why}")),
            ureq::Error::BodyExceedsLimit(_) => {
                FetchError::TooLarge { limit: limits.bytes.unwrap_or(u64::MAX) }
            }
            other => FetchError::Protocol(other.to_string()),
        }
    }
}

/// The limits that error messages quote.
pub(super) struct FetchLimits {
    pub(super) request: Duration,
    pub(super) connect: Duration,
    pub(super) bytes: Option<u64>,
}

/// The text of an error of TLS. An answer that is not TLS at all comes from a server of http in most cases.
fn tls_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.starts_with("received corrupt message") {
        true => {
            format!("the server does not speak TLS, so its URLs may be of http, not https ({text})")
        }
        false => text,
    }
}

/// An I/O error as `connection refused`, not `Connection refused (os error 111)`.
fn io_text(error: &io::Error) -> String {
    let kind = error.kind().to_string();
    let has_kind = error.raw_os_error().is_some() && kind != "uncategorized error";
    if has_kind { kind } else { error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::StatusCode;

    const LIMITS: FetchLimits = FetchLimits {
        request: Duration::from_secs(10),
        connect: Duration::from_millis(1500),
        bytes: Some(10_000_000),
    };

    fn status(code: u16) -> FetchError {
        FetchError::from_status(StatusCode::from_u16(code).unwrap())
    }

    #[test]
    fn a_status_has_its_reason_phrase() {
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
    fn errors_of_the_system_are_shown_without_their_number() {
        let refused = io::Error::from_raw_os_error(111).into();
        let error = FetchError::before_answer(refused, &LIMITS);
        assert_eq!(error.to_string(), "connection error: connection refused");
        let eof = || io::Error::from(io::ErrorKind::UnexpectedEof).into();
        let early = FetchError::before_answer(eof(), &LIMITS);
        assert!(early.to_string().starts_with("connection error: the server closed"));
        assert!(matches!(FetchError::in_body(eof(), &LIMITS), FetchError::CutShort));
    }

    #[test]
    fn a_server_without_tls_is_said_to_have_none() {
        // As rustls tells it.
        let text = "received corrupt message of type InvalidContentType";
        let error = io::Error::new(io::ErrorKind::InvalidData, text).into();
        let message = FetchError::before_answer(error, &LIMITS).to_string();
        assert!(message.contains("the server does not speak TLS"), "{message}");
        let error = io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate").into();
        let message = FetchError::before_answer(error, &LIMITS).to_string();
        assert_eq!(message, "bad answer: invalid peer certificate");
    }

    #[test]
    fn the_message_of_a_timeout_has_its_duration() {
        let whole = FetchError::in_body(ureq::Error::Timeout(ureq::Timeout::Global), &LIMITS);
        assert_eq!(whole.to_string(), "timed out after 10 s");
        let connect =
            FetchError::before_answer(ureq::Error::Timeout(ureq::Timeout::Connect), &LIMITS);
        assert_eq!(connect.to_string(), "timed out after 1.5 s");
    }
}
