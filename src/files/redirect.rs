//! The target of a redirect.
//!
//! The redirects are followed here and not by the HTTP client, because the client does not keep the
//! status of a redirect that it cannot follow. A target is always http or https.

use ureq::http::{Response, Uri, header::LOCATION};

/// The URL that the response to a request for `from` redirects to. `None` if it is no redirect, or one
/// without a valid URL. Dot segments (`../`) are left to the server.
pub fn target<B>(from: &Uri, response: &Response<B>) -> Option<Uri> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    join(from, response.headers().get(LOCATION)?.to_str().ok()?)
}

/// Whether both URLs have the same scheme, host and port.
pub(super) fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    let origin = |uri: &Uri| {
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        (uri.scheme().cloned(), host, uri.port_u16().unwrap_or(usual))
    };
    origin(one) == origin(other)
}

fn join(from: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let directory = from.path().rsplit_once('/').map_or("", |(directory, _)| directory);
    let location = location.split_once('#').map_or(location, |(location, _)| location);
    if location.is_empty() {
        return Some(from.clone()); // the same URL again
    }
    let absolute = if has_scheme(location) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", from.path())
    } else {
        format!("{scheme}://{authority}{directory}/{location}")
    };
    let uri: Uri = absolute.parse().ok()?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    (web && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
}

/// Whether it begins with the name of a scheme and a colon, as `data:,x` does. A relative URL may have a colon, and
/// a whole URL in its query, as `/login?next=http://host/`.
fn has_scheme(location: &str) -> bool {
    let is_in_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(is_in_scheme)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(location: &str) -> Option<String> {
        let from = Uri::from_static("http://one.example:81/flags/br/br.gif?x=1");
        join(&from, location).map(|uri| uri.to_string())
    }

    #[test]
    fn a_location_may_be_absolute_or_relative() {
        for (location, url) in [
            ("https://two.example/br.gif", "https://two.example/br.gif"),
            ("//two.example/br.gif", "http://two.example/br.gif"),
            ("/br.gif", "http://one.example:81/br.gif"),
            ("?x=2", "http://one.example:81/flags/br/br.gif?x=2"),
            ("new.gif", "http://one.example:81/flags/br/new.gif"),
            ("HTTPS://two.example/br.gif#top", "https://two.example/br.gif"),
            (
                "/login?next=http://two.example/",
                "http://one.example:81/login?next=http://two.example/",
            ),
            (
                "?next=http://two.example/",
                "http://one.example:81/flags/br/br.gif?next=http://two.example/",
            ),
            ("./a:b.gif", "http://one.example:81/flags/br/./a:b.gif"),
            ("#top", "http://one.example:81/flags/br/br.gif?x=1"),
            ("", "http://one.example:81/flags/br/br.gif?x=1"),
        ] {
            assert_eq!(joined(location).as_deref(), Some(url));
        }
    }

    #[test]
    fn other_schemes_and_nonsense_are_not_followed() {
        for location in [
            "file:///etc/passwd",
            "ftp://two.example/",
            "http://",
            "http://a b/",
            "data:image/gif;base64,R0lGODlh",
            "mailto:one@two.example",
            "about:blank",
            "http:new.gif",
        ] {
            assert_eq!(joined(location), None, "{location}");
        }
    }

    #[test]
    fn only_a_redirect_with_a_location_has_a_target() {
        let from = Uri::from_static("http://one.example/");
        let answer = |status: u16, location: Option<&str>| {
            let mut builder = Response::builder().status(status);
            if let Some(location) = location {
                builder = builder.header(LOCATION, location);
            }
            builder.body(()).unwrap()
        };
        assert!(target(&from, &answer(302, Some("/a"))).is_some());
        assert!(target(&from, &answer(302, None)).is_none());
        assert!(target(&from, &answer(304, Some("/a"))).is_none());
        assert!(target(&from, &answer(200, Some("/a"))).is_none());
    }
}
