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
pub enum SiteError {
    /// It is neither a label nor a base URL.
    #[error(
        "--server LABEL must be one of DELAY, ERROR, LOCAL, REMOTE or a base URL \
         (http://HOST/PATH or https://HOST/PATH), not {0:?}"
    )]
    NoSite(String),
    /// The URL has the name of a user, perhaps with a password.
    #[error(
        "--server URL must have no user name, which would stand in the logs: write the URL without \
         it, and add --header 'Authorization: Basic …'"
    )]
    User,
}

impl FromStr for Site {
    type Err = SiteError;

    fn from_str(text: &str) -> Result<Self, SiteError> {
        match text.to_ascii_uppercase().as_str() {
            "LOCAL" => Ok(Site::Local),
            "DELAY" => Ok(Site::Delay),
            "ERROR" => Ok(Site::Error),
            "REMOTE" => Ok(Site::Remote),
            _ => base_url(text).map(Site::Custom),
        }
    }
}

/// The text without trailing slashes, when `/br/br.gif` can be appended to it.
fn base_url(text: &str) -> Result<String, SiteError> {
    let behind_scheme = text.split_once("://").map_or(text, |(_, behind)| behind);
    if behind_scheme.split('/').next().is_some_and(|authority| authority.contains('@')) {
        return Err(SiteError::User);
    }
    let no_site = || SiteError::NoSite(text.to_owned());
    let uri: Uri = text.parse().map_err(|_| no_site())?;
    let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
    let authority = uri.authority().ok_or_else(no_site)?;
    let web = matches!(scheme.as_str(), "http" | "https");
    // A query or a fragment would swallow what is appended.
    let is_whole = !text.contains(['?', '#']);
    let after_host = authority.as_str().rsplit(']').next().unwrap_or_default();
    let port_ok = !after_host.contains(':') || authority.port_u16().is_some();
    let host_ok = !authority.host().is_empty();
    let is_base = web && is_whole && host_ok && port_ok;
    is_base.then(|| text.trim_end_matches('/').to_owned()).ok_or_else(no_site)
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

    #[test]
    fn a_url_with_a_user_name_is_refused_and_the_message_does_not_repeat_it() {
        for bad in ["http://ann:secret@host/flags", "https://ann@host", "http://ann:se?cret@host"] {
            let error = bad.parse::<Site>().unwrap_err();
            let text = error.to_string();
            assert!(!text.contains("ann") && text.contains("--header"), "{text}");
        }
    }
}
