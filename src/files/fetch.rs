//! Fetches one file over HTTP: a GET with a deadline, a size limit and retries.
//!
//! ```text
//!  fetch ─► try 1 ─► GET ─► redirects ─► status 200? ─► body, within the limit ─► its check?
//!             ▲                                                                      │
//!             └──────── backoff, when the error may pass and tries are left ◄────────┘
//! ```
//!
//! Each request has a deadline, and only a body that is complete and checked is returned: in memory if it
//! has to be checked, else in a temporary file, into which it is written while it arrives.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use ureq::Body;
use ureq::http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH, RETRY_AFTER};
use ureq::http::{Response, StatusCode, Uri};

use super::client::{Client, FetchSettings};
use super::fetch_error::FetchError;
use super::item::{BodyCheck, FileItem};
use super::rate::RateGate;
use super::save::{ReceivedBody, SaveError};
use super::validators::Validators;
use super::{client, image, redirect, save};

/// More redirects than that are a loop.
const MAX_REDIRECTS: u32 = 10;

/// The longest `Retry-After` that is honoured. After a longer one the next try follows the usual
/// backoff.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// The most that is allocated for a body in advance, and the most that is written at once, in bytes.
const USUAL_BYTES: u64 = 64 * 1024;

/// The bodies of errors are read up to this size, so that the connection can be used again.
const DRAIN_BYTES: u64 = 16 * 1024;

/// The outcome of a fetch.
#[derive(Debug)]
pub struct Fetched {
    /// The body, complete and checked; or why there is none.
    pub result: Result<ReceivedBody, FetchError>,
    /// The status of the last answer, if the last try got one.
    pub http_status: Option<u16>,
    /// How many requests were tried, 1 or more (redirects do not count).
    pub attempts: u32,
    /// The validators of the last response.
    pub validators: Validators,
    /// How long the requests waited for their turns, where there is a limit of requests per second.
    pub waited: Duration,
}

/// What a download has of its process.
#[derive(Debug, Clone, Copy)]
pub struct FetchTools<'a> {
    /// The HTTP client.
    pub client: &'a Client,
    /// The limit of requests per second, if there is one.
    pub gate: Option<&'a RateGate>,
    /// The directory of temporary files: the destination.
    pub dest: &'a Path,
}

/// A try that failed and is followed by another.
#[derive(Debug)]
pub struct RetryNotice<'e> {
    /// The number of the try, from 1.
    pub attempt: u32,
    /// Its error.
    pub error: &'e FetchError,
    /// The time until the next one.
    pub pause: Duration,
}

/// Fetches an item, trying again as `settings` allow, unless the file still has the validators `known`:
/// then the result is [`FetchError::NotModified`]. Calls `on_retry` before each pause. Blocks for at most
/// `timeout * (1 + retries)`, the pauses between, and the turns that it waits for.
pub fn fetch(
    tools: FetchTools<'_>,
    settings: &FetchSettings,
    item: &FileItem,
    known: &Validators,
    mut on_retry: impl FnMut(&RetryNotice<'_>),
) -> Fetched {
    let mut backoff = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_factor(2.0)
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(settings.retries as usize)
        .with_jitter()
        // Without a seed, the pauses of all processes would be the same.
        .with_jitter_seed(fastrand::u64(..))
        .build();
    let mut attempts = 0;
    let mut waited = Duration::ZERO;
    loop {
        attempts += 1;
        waited += tools.gate.map(RateGate::wait).unwrap_or_default();
        let (result, answer) = try_once(tools, settings, item, known, attempts);
        let pause = match &result {
            Err(error) if error.is_retryable() => backoff.next(),
            _ => None,
        };
        let (Some(pause), Err(error)) = (pause, &result) else {
            let ResponseInfo { status, validators, retry_after: _ } = answer;
            return Fetched { result, http_status: status, attempts, validators, waited };
        };
        let pause = answer.retry_after.unwrap_or_default().max(pause);
        on_retry(&RetryNotice { attempt: attempts, error, pause });
        std::thread::sleep(pause);
    }
}

/// A response without its body.
#[derive(Default)]
struct ResponseInfo {
    status: Option<u16>,
    retry_after: Option<Duration>,
    validators: Validators,
}

fn try_once(
    tools: FetchTools<'_>,
    settings: &FetchSettings,
    item: &FileItem,
    known: &Validators,
    attempt: u32,
) -> (Result<ReceivedBody, FetchError>, ResponseInfo) {
    let mut response = match get(tools.client, settings, &item.url, known, attempt) {
        Ok(response) => response,
        Err(NoResponse { error, status }) => {
            return (Err(error), ResponseInfo { status, ..ResponseInfo::default() });
        }
    };
    let status = response.status();
    let answer = ResponseInfo {
        status: Some(status.as_u16()),
        retry_after: retry_after(&response),
        validators: Validators::of(response.headers()),
    };
    if status != StatusCode::OK {
        drain(&mut response);
        let error = match status {
            // Without validators in the request this status is an error: there is no earlier flag.
            StatusCode::NOT_MODIFIED if !known.is_empty() => FetchError::NotModified,
            status => FetchError::from_status(status),
        };
        return (Err(error), answer);
    }
    let result = match item.check {
        BodyCheck::Any => part(&mut response, settings, tools.dest, item),
        BodyCheck::Gif => body(&mut response, settings).and_then(|bytes| {
            image::check(&bytes)?;
            Ok(ReceivedBody::Bytes(bytes))
        }),
    };
    (result, answer)
}

/// There was no final response.
struct NoResponse {
    error: FetchError,
    /// The status of the last redirect, if there was one.
    status: Option<u16>,
}

/// Sends the request and follows redirects, all within one deadline.
fn get(
    client: &Client,
    settings: &FetchSettings,
    url: &str,
    known: &Validators,
    attempt: u32,
) -> Result<Response<Body>, NoResponse> {
    let start = Instant::now();
    let mut status = None;
    let first: Uri = url.parse().map_err(|error| {
        let error = FetchError::Protocol(format!("{url} is no URL: {error}"));
        NoResponse { error, status }
    })?;
    let mut uri = first.clone();
    for _ in 0..=MAX_REDIRECTS {
        let left = settings.limits().request.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(NoResponse { error: FetchError::Timeout(settings.timeout), status });
        }
        let mut request = client.agent(&uri).get(&uri);
        if settings.server.is_some() {
            request = request.header("x-attempt", attempt);
        }
        // They may be secrets, which another server must not learn.
        if redirect::is_same_origin(&first, &uri) {
            for (name, value) in &settings.headers {
                request = request.header(name, value);
            }
        }
        if let Some(etag) = &known.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(date) = &known.last_modified {
            request = request.header(IF_MODIFIED_SINCE, date);
        }
        let mut request = request.config().timeout_global(Some(left));
        if client::is_loopback(&uri) {
            request = request.proxy(None);
        }
        let mut response = request.build().call().map_err(|error| {
            let error = FetchError::before_answer(error, &settings.limits());
            NoResponse { error, status }
        })?;
        let Some(next) = redirect::target(&uri, &response) else {
            return Ok(response);
        };
        status = Some(response.status().as_u16());
        drain(&mut response);
        uri = next;
    }
    Err(NoResponse { error: FetchError::TooManyRedirects(MAX_REDIRECTS), status })
}

/// An error, if the response says that its body is larger than allowed.
fn check_length(response: &Response<Body>, settings: &FetchSettings) -> Result<(), FetchError> {
    match (response.body().content_length(), settings.max_bytes) {
        (Some(length), Some(limit)) if length > limit => Err(FetchError::TooLarge { limit }),
        _ => Ok(()),
    }
}

fn body(response: &mut Response<Body>, settings: &FetchSettings) -> Result<Vec<u8>, FetchError> {
    check_length(response, settings)?;
    let length = response.body().content_length().unwrap_or_default();
    // One byte more, to see the end without growing. The header may be wrong.
    let mut bytes = Vec::with_capacity(length.min(USUAL_BYTES) as usize + 1);
    match reader(response, settings).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(FetchError::in_body(error.into(), &settings.limits())),
    }
}

fn reader<'r>(response: &'r mut Response<Body>, settings: &FetchSettings) -> impl Read + use<'r> {
    let limit = settings.max_bytes.unwrap_or(u64::MAX);
    response.body_mut().with_config().limit(limit).reader()
}

/// Writes the body into a temporary file.
fn part(
    response: &mut Response<Body>,
    settings: &FetchSettings,
    dest: &Path,
    item: &FileItem,
) -> Result<ReceivedBody, FetchError> {
    check_length(response, settings)?;
    let cannot_save = |source| SaveError::CannotSave { path: dest.join(&item.file), source };
    let mut part = save::create_part(dest).map_err(cannot_save)?;
    let mut body = reader(response, settings);
    let mut buffer = vec![0; USUAL_BYTES as usize];
    let mut bytes = 0;
    loop {
        let read = match body.read(&mut buffer) {
            Ok(0) => return Ok(ReceivedBody::Part(part, bytes)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(FetchError::in_body(error.into(), &settings.limits())),
        };
        part.as_file_mut().write_all(&buffer[..read]).map_err(cannot_save)?;
        bytes += read as u64;
    }
}

/// Reads a body that is not used, so that the connection can be used again.
fn drain(response: &mut Response<Body>) {
    let _ = response.body_mut().with_config().limit(DRAIN_BYTES).read_to_vec();
}

/// The pause of `Retry-After`, if it is given in seconds and not longer than the limit.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds)).filter(|pause| *pause <= LONGEST_RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

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
