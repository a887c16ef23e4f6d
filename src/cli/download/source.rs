//! Where the items of a job come from: the flags of a site, or any URLs.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::http::Uri;

use super::args::{SourceArgs, UrlArgs};
use crate::cli::embedded_server;
use crate::cli::options::{CodeArgsError, FLAG_TIMEOUT};
use crate::cli::value;
use crate::files::item::FileItem;
use crate::files::report::FileNoun;
use crate::flag_server::{DEFAULT_SEED, FlagServer, StartError};
use crate::flags::codes::Code;
use crate::flags::items;
use crate::flags::site::Site;
use crate::urls::list::{UrlList, UrlListError, UrlText};

/// The largest flag, in bytes.
const LARGEST_FLAG: u64 = 10_000_000;

/// The timeout of a request for a file.
const FILE_TIMEOUT: Duration = Duration::from_secs(60);

/// A source of items, resolved.
#[derive(Debug)]
pub(super) enum ItemSource {
    Flags { codes: Vec<Code>, site: Site, seed: u64 },
    Urls { items: Vec<FileItem>, notes: Vec<String> },
}

/// The items cannot be known.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("{0}")]
    Codes(#[from] CodeArgsError),
    #[error(transparent)]
    Urls(#[from] UrlListError),
    #[error("{0} is a file, not a URL: to fetch the URLs in it, write -i {0}")]
    FileAsUrl(String),
    #[error("- is no URL: for URLs on standard input, write -i -")]
    InputAsUrl,
    #[error("--input FILE must be readable text: {}", file.display())]
    Input { file: PathBuf, source: io::Error },
}

/// A source whose items can be fetched.
pub(super) struct OpenedSource {
    pub items: Arc<[FileItem]>,
    /// Where they come from, as the first line of the report.
    pub headline: String,
    /// Stopped when it is dropped.
    _server: Option<FlagServer>,
}

impl ItemSource {
    pub(super) fn resolve(args: SourceArgs) -> Result<Self, SourceError> {
        match args {
            SourceArgs::Flags { codes, site } => Ok(Self::Flags {
                codes: codes.resolve()?,
                site: site.server,
                seed: site.seed.unwrap_or(DEFAULT_SEED),
            }),
            SourceArgs::Urls(UrlArgs { url, input, limit }) => {
                if let Some(file) = url.iter().find(|url| is_file(url)) {
                    return Err(SourceError::FileAsUrl(file.clone()));
                }
                if url.iter().any(|url| url == "-") {
                    return Err(SourceError::InputAsUrl);
                }
                let texts = input.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
                let UrlList { mut items, notes } = UrlList::read(&url, &texts)?;
                items.truncate(limit.unwrap_or(usize::MAX));
                Ok(Self::Urls { items, notes })
            }
            SourceArgs::Left(items) => Ok(Self::Urls { items, notes: Vec::new() }),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Flags { codes, .. } => codes.len(),
            Self::Urls { items, .. } => items.len(),
        }
    }

    /// What the user should know before anything is fetched.
    pub(super) fn notes(&self) -> &[String] {
        match self {
            Self::Flags { .. } => &[],
            Self::Urls { notes, .. } => notes,
        }
    }

    pub(super) fn noun(&self) -> FileNoun {
        match self {
            Self::Flags { .. } => FileNoun::Flag,
            Self::Urls { .. } => FileNoun::File,
        }
    }

    /// Whether a server has to be started.
    pub(super) fn needs_server(&self) -> bool {
        matches!(self, Self::Flags { site, .. } if site.base_url().is_none())
    }

    /// The server in reports and logs: its label or base URL, or those of the URLs.
    pub(super) fn server_name(&self) -> String {
        match self {
            Self::Flags { site, .. } => site.to_string(),
            Self::Urls { items, .. } => servers(items),
        }
    }

    /// The base URL, if it was typed: it may lead to no flags.
    pub(super) fn typed_base(&self) -> Option<&str> {
        match self {
            Self::Flags { site: Site::Custom(url), .. } => Some(url),
            _ => None,
        }
    }

    /// The name under which validators are kept; without one, under the URLs.
    pub(super) fn server_label(&self) -> Option<String> {
        match self {
            Self::Flags { site, .. } => Some(site.to_string()),
            Self::Urls { .. } => None,
        }
    }

    pub(super) fn default_timeout(&self) -> Duration {
        match self {
            Self::Flags { .. } => FLAG_TIMEOUT,
            Self::Urls { .. } => FILE_TIMEOUT,
        }
    }

    /// The largest file that is accepted by default, in bytes.
    pub(super) fn default_max_bytes(&self) -> Option<u64> {
        match self {
            Self::Flags { .. } => Some(LARGEST_FLAG),
            Self::Urls { .. } => None,
        }
    }

    /// The seed of the faults of ERROR.
    pub(super) fn seed(&self) -> u64 {
        match self {
            Self::Flags { seed, .. } => *seed,
            Self::Urls { .. } => DEFAULT_SEED,
        }
    }

    /// The command that has such a source.
    pub(super) fn command(&self) -> &'static str {
        match self {
            Self::Flags { .. } => "coordinator",
            Self::Urls { .. } => "coordinator fetch",
        }
    }

    /// The items as they would be, without a server.
    pub(super) fn planned(&self) -> Vec<FileItem> {
        match self {
            Self::Flags { codes, site, .. } => {
                let base = site.base_url().unwrap_or(site.label());
                codes.iter().map(|code| items::item(base, *code)).collect()
            }
            Self::Urls { items, .. } => items.clone(),
        }
    }

    /// Starts the server, if there is to be one, and gives the items.
    pub(super) fn open(&self) -> Result<OpenedSource, StartError> {
        match self {
            Self::Flags { codes, site, seed } => {
                let server = embedded_server::start(site, *seed)?;
                let site_url = site.base_url().unwrap_or_default().to_owned();
                let base = server.as_ref().map_or(site_url.clone(), FlagServer::base_url);
                let shown = server.as_ref().map_or(site_url, FlagServer::shown_url);
                Ok(OpenedSource {
                    items: codes.iter().map(|code| items::item(&base, *code)).collect(),
                    headline: format!("{} site: {shown}", site.label()),
                    _server: server,
                })
            }
            Self::Urls { items, .. } => Ok(OpenedSource {
                items: items.clone().into(),
                headline: format!("URLs of {}", servers(items)),
                _server: None,
            }),
        }
    }
}

/// Whether the name of a list was typed in place of a URL.
fn is_file(url: &str) -> bool {
    !url.contains("://") && Path::new(url).is_file()
}

fn read(file: &Path) -> Result<UrlText, SourceError> {
    let (name, text) = value::read_text(file)
        .map_err(|source| SourceError::Input { file: file.to_owned(), source })?;
    Ok(UrlText { name, text })
}

/// The server of the URLs, or the number of their servers.
fn servers(items: &[FileItem]) -> String {
    let origin = |item: &FileItem| {
        let uri: Uri = item.url.parse().ok()?;
        Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?))
    };
    let servers: BTreeSet<_> = items.iter().filter_map(origin).collect();
    match servers.first() {
        Some(only) if servers.len() == 1 => only.clone(),
        _ => format!("{} servers", servers.len()),
    }
}
