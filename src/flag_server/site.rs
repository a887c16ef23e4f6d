//! The pages of the server: from a request to its response.
//!
//! Only `/flags/br/br.gif` and the like have faults; every other path is a plain page or a 404. Nothing
//! here may block, since one thread serves all connections.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::faults::Faults;
use super::images;

/// The request header with the number of the attempt, counted from 1.
///
/// A client that sends it gets the same faults in every run, in any order of requests. For other
/// clients the server counts the requests for each code, so that a retry with curl can succeed, too.
pub const ATTEMPT_HEADER: &str = "x-attempt";

/// One answered request, for the hook of
/// [`FlagServerBuilder::on_request`](super::FlagServerBuilder::on_request).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestInfo<'a> {
    /// The HTTP method, such as `GET`.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The status of the response.
    pub status: u16,
    /// Whether the response was delayed on purpose.
    pub delayed: bool,
    /// The time from the request to its response.
    pub took: Duration,
}

/// Is called for each request.
pub(super) type RequestHook = Box<dyn Fn(&RequestInfo<'_>) + Send + Sync>;

/// The state of a running server.
pub(super) struct ServerState {
    faults: Faults,
    on_request: Option<RequestHook>,
    served: AtomicU64,
    /// The number of requests for each code without [`ATTEMPT_HEADER`]. At most 676 entries, since
    /// only two-letter codes are counted.
    requests: Mutex<HashMap<String, u32>>,
}

impl ServerState {
    pub(super) fn new(faults: Faults, on_request: Option<RequestHook>) -> Self {
        ServerState { faults, on_request, served: AtomicU64::new(0), requests: Mutex::default() }
    }

    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// The number of the attempt at `cc` that a request is.
    fn attempt(&self, cc: &str, headers: &HeaderMap) -> u32 {
        let number = headers
            .get(ATTEMPT_HEADER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.trim().parse().ok());
        number.unwrap_or_else(|| {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            let count = requests.entry(cc.to_owned()).or_default();
            *count = count.wrapping_add(1);
            *count
        })
    }
}

/// Marks a delayed response, for its [`RequestInfo`].
#[derive(Clone)]
struct Delayed;

/// The whole site as one service.
pub(super) fn router(site: Arc<ServerState>) -> Router {
    Router::new()
        .route("/", get(front_page))
        .route("/flags", get(front_page))
        .route("/flags/", get(front_page))
        .route("/flags/{cc}/{file}", get(flag))
        .fallback(|| async { not_found() })
        .layer(middleware::from_fn_with_state(site.clone(), record))
        .with_state(site)
}

async fn front_page(State(site): State<Arc<ServerState>>) -> String {
    format!(
        "This is procession's {} flag server, for trying out ways to download.\n\
         Ask for /flags/br/br.gif, or the lower-case code of another country.\n\
         The flags are drawn by Twemoji (https://github.com/jdecked/twemoji), CC-BY 4.0.\n",
        site.faults.kind,
    )
}

async fn flag(State(site): State<Arc<ServerState>>, uri: Uri, headers: HeaderMap) -> Response {
    let Some(cc) = code_in(uri.path()) else {
        return not_found();
    };
    let plan = site.faults.plan(cc, site.attempt(cc, &headers));
    if let Some(delay) = plan.delay {
        tokio::time::sleep(delay).await;
    }
    let mut response = match plan.status {
        Some(status) => fault(status),
        None => match images::image(cc) {
            Some(gif) => picture(gif, &headers),
            None => not_found(),
        },
    };
    if plan.delay.is_some() {
        response.extensions_mut().insert(Delayed);
    }
    response
}

/// The flag, or 304 to a client that has it.
fn picture(gif: Bytes, headers: &HeaderMap) -> Response {
    let tag = images::entity_tag(&gif);
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let is_known = known.flat_map(|tags| tags.split(',')).any(|known| {
        // RFC 9110 allows a weak tag here.
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    });
    let tag = [(header::ETAG, tag)];
    if is_known {
        return (StatusCode::NOT_MODIFIED, tag).into_response();
    }
    (tag, [(header::CONTENT_TYPE, "image/gif")], gif).into_response()
}

/// The code in `/flags/br/br.gif`. As on the book's servers, case matters and both parts must
/// agree.
fn code_in(path: &str) -> Option<&str> {
    let (cc, file) = path.strip_prefix("/flags/")?.split_once('/')?;
    let is_code = cc.len() == 2 && cc.bytes().all(|letter| letter.is_ascii_lowercase());
    (is_code && file.strip_suffix(".gif") == Some(cc)).then_some(cc)
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 Not Found\n").into_response()
}

fn fault(status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, format!("{status}: a fault made on purpose\n")).into_response()
}

/// Counts each response and calls the hook.
async fn record(State(site): State<Arc<ServerState>>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let uri = request.uri().clone();
    let begun = Instant::now();
    let response = next.run(request).await;
    site.served.fetch_add(1, Ordering::Relaxed);
    if let Some(on_request) = &site.on_request {
        on_request(&RequestInfo {
            method: method.as_str(),
            path: uri.path(),
            status: response.status().as_u16(),
            delayed: response.extensions().get::<Delayed>().is_some(),
            took: begun.elapsed(),
        });
    }
    response
}

#[cfg(test)]
mod tests {
    use super::super::ServerKind;
    use super::*;

    #[test]
    fn only_a_lower_case_code_given_twice_names_a_flag() {
        assert_eq!(code_in("/flags/br/br.gif"), Some("br"));
        assert_eq!(code_in("/flags/zz/zz.gif"), Some("zz"));
        for path in [
            "/flags/br/cn.gif",
            "/flags/BR/BR.gif",
            "/flags/br/BR.gif",
            "/flags/br/br.png",
            "/flags/br/br",
            "/flags/br/",
            "/flags/bra/bra.gif",
            "/flags/%62r/br.gif",
            "/flags/../br.gif",
            "/br/br.gif",
        ] {
            assert_eq!(code_in(path), None, "{path}");
        }
    }

    #[test]
    fn the_attempt_is_that_of_the_header_or_counted_by_the_server() {
        let faults = Faults { kind: ServerKind::Local, seed: 0 };
        let site = ServerState::new(faults, None);
        let headers = |value: &'static str| {
            HeaderMap::from_iter([(
                header::HeaderName::from_static(ATTEMPT_HEADER),
                header::HeaderValue::from_static(value),
            )])
        };
        assert_eq!(site.attempt("br", &HeaderMap::new()), 1);
        assert_eq!(site.attempt("br", &headers("7")), 7);
        assert_eq!(site.attempt("br", &HeaderMap::new()), 2);
        assert_eq!(site.attempt("br", &headers("seven")), 3);
        assert_eq!(site.attempt("cn", &HeaderMap::new()), 1);
    }
}
