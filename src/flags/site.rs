//! The servers that have a name, and any other by its base URL.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use ureq::http::Uri;

/// The server behind [`Site::Remote`].
pub const REMOTE_URL: &str = "https://www.fluentpython.com/data/flags";

/// A server of flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Site {
    /// The embedded server that answers at once.
    #[default]
    Local,
    /// The embedded server that answers late.
    Delay,
    /// The embedded server that often fails.
    Error,
    /// The book's site on the internet.
    Remote,
    /// Any other server, by its base URL (without a trailing slash).
    Custom(String),
}

impl Site {
    /// The name in reports: `LOCAL`, or `Custom` for a URL.
    pub fn label(&self) -> &'static str {
        match self {
            Site::Local => "LOCAL",
            Site::Delay => "DELAY",
            Site::Error => "ERROR",
            Site::Remote => "REMOTE",
            Site::Custom(_) => "Custom",
        }
    }

    /// The base URL of a server that runs elsewhere; none for the embedded ones, whose port is
    /// known only once they run.
    pub fn base_url(&self) -> Option<&str> {
        match self {
            Site::Local | Site::Delay | Site::Error => None,
            Site::Remote => Some(REMOTE_URL),
            Site::Custom(url) => Some(url),
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Site::Custom(url) => f.write_str(url),
            named => f.write_str(named.label()),
        }
    }
}

/// A text that names no server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "--server LABEL must be one of DELAY, ERROR, LOCAL, REMOTE or a base URL \
     (http://HOST/PATH or https://HOST/PATH), not {0:?}"
)]
pub struct SiteError(String);

impl FromStr for Site {
    type Err = SiteError;

    fn from_str(text: &str) -> Result<Self, SiteError> {
        match text.to_ascii_uppercase().as_str() {
            "LOCAL" => Ok(Site::Local),
            "DELAY" => Ok(Site::Delay),
            "ERROR" => Ok(Site::Error),
            "REMOTE" => Ok(Site::Remote),
            _ => base_url(text).map(Site::Custom).ok_or_else(|| SiteError(text.to_owned())),
        }
    }
}

/// The text without trailing slashes, when `/br/br.gif` can be appended to it.
fn base_url(text: &str) -> Option<String> {
    // A query or a fragment would swallow what is appended.
    if text.contains(['?', '#']) {
        return None;
    }
    let uri: Uri = text.parse().ok()?;
    let web = matches!(uri.scheme_str()?.to_ascii_lowercase().as_str(), "http" | "https");
    let authority = uri.authority()?;
    let after_host = authority.as_str().rsplit(']').next().unwrap_or_default();
    let port_ok = !after_host.contains(':') || authority.port_u16().is_some();
    let host_ok = !authority.host().is_empty();
    (web && host_ok && port_ok).then(|| text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_taken_in_any_case() {
        assert_eq!("local".parse(), Ok(Site::Local));
        assert_eq!("Delay".parse(), Ok(Site::Delay));
        assert_eq!("ERROR".parse(), Ok(Site::Error));
        let remote: Site = "remote".parse().unwrap();
        assert_eq!((remote.label(), remote.base_url()), ("REMOTE", Some(REMOTE_URL)));
        assert_eq!(Site::default().base_url(), None);
    }

    #[test]
    fn a_base_url_loses_its_trailing_slash() {
        for (typed, kept) in [
            ("http://localhost:8001/flags/", "http://localhost:8001/flags"),
            ("https://example.org", "https://example.org"),
            ("http://[::1]:80//", "http://[::1]:80"),
            ("http://[::1]/flags", "http://[::1]/flags"),
            ("HTTP://127.0.0.1/flags", "HTTP://127.0.0.1/flags"),
        ] {
            let site: Site = typed.parse().unwrap();
            assert_eq!((site.label(), site.base_url()), ("Custom", Some(kept)));
            assert_eq!(site.to_string(), kept);
        }
    }

    #[test]
    fn other_texts_are_refused_and_the_message_has_the_valid_ones() {
        for bad in [
            "",
            "LOCALE",
            "localhost:8001",
            "ftp://example.org",
            "http://",
            "http:///flags",
            "http://:80/",
            "http://host:99999/",
            "http://a b/",
            "http://host/?q=",
            "http://host/#top",
        ] {
            let error = bad.parse::<Site>().unwrap_err().to_string();
            assert!(
                error.starts_with(
                    "--server LABEL must be one of DELAY, ERROR, LOCAL, REMOTE or a base URL"
                ),
                "{error}"
            );
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }
}
