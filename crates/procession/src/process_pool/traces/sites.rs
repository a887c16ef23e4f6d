//! [`RemoteSite`]: a place in the code of a worker, as a callsite of this process.
//!
//! A subscriber keeps what it decides about a callsite, and refers to its names for ever. So a site of a worker
//! is never freed: the same one serves all workers and pools, and each worker index may add a number of them, for
//! the whole life of this process. An honest program has far fewer; a worker that invents names loses those above.
//! One callsite for all, with the names in fields, would need no memory; but then no filter of the program would
//! know the target and the level of an event.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_core::callsite::{self, Callsite, Identifier};
use tracing_core::field::FieldSet;
use tracing_core::metadata::Kind;
use tracing_core::subscriber::Interest;
use tracing_core::{Level, Metadata};

use crate::printable::printable;
use crate::transport::{MAX_SITES, TraceSite};

/// See the head of the file.
pub(super) struct RemoteSite {
    metadata: OnceLock<Metadata<'static>>,
}

impl Callsite for RemoteSite {
    /// Not kept: it is that of the subscriber of the thread that registers the site, which need not be the one of
    /// the pool. So that is asked each time.
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.known()
    }
}

impl RemoteSite {
    fn known(&self) -> &Metadata<'static> {
        self.metadata.get().expect("set before it is registered")
    }

    pub(super) fn static_metadata(&'static self) -> &'static Metadata<'static> {
        self.known()
    }
}

/// The sites of all workers of this process.
#[derive(Default)]
struct RemoteSites {
    sites: HashMap<TraceSite<'static>, &'static RemoteSite>,
    /// How many of them each worker index has added.
    added: HashMap<usize, usize>,
}

/// The site of this process for one of a worker. `None` if the worker has added too many.
pub(super) fn find(site: TraceSite<'static>, worker: usize) -> Option<&'static RemoteSite> {
    static SITES: OnceLock<Mutex<RemoteSites>> = OnceLock::new();
    let mut all = SITES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = all.sites.get(&site) {
        return Some(known);
    }
    let added = all.added.entry(worker).or_default();
    if *added == MAX_SITES {
        return None;
    }
    *added += 1;
    let remote = leak(&site);
    all.sites.insert(site, remote);
    drop(all);
    // Without the lock: it asks the subscribers of the program.
    callsite::register(remote);
    Some(remote)
}

fn leak(site: &TraceSite<'static>) -> &'static RemoteSite {
    let text = |text: &str| -> &'static str { Box::leak(printable(text).into()) };
    let remote: &'static RemoteSite = Box::leak(Box::new(RemoteSite { metadata: OnceLock::new() }));
    let names: Vec<_> = site.fields.iter().map(|name| text(name)).collect();
    let kind = if site.is_span { Kind::SPAN } else { Kind::EVENT };
    let level = match site.level {
        1 => Level::ERROR,
        2 => Level::WARN,
        3 => Level::INFO,
        4 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let _ = remote.metadata.set(Metadata::new(
        text(&site.name),
        text(&site.target),
        level,
        site.file.as_deref().map(text),
        site.line,
        site.module.as_deref().map(text),
        FieldSet::new(Box::leak(names.into()), Identifier(remote)),
        kind,
    ));
    remote
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(n: usize) -> TraceSite<'static> {
        TraceSite {
            is_span: false,
            level: 2,
            name: format!("site {n}\u{1b}").into(),
            target: "remote".into(),
            module: None,
            file: Some("a.rs".into()),
            line: Some(n as u32),
            fields: vec!["message".into(), "n".into()],
        }
    }

    #[test]
    fn each_worker_adds_a_bounded_number_and_shares_those_of_the_others() {
        let (hostile, honest) = (1_000_001, 1_000_002);
        for n in 0..MAX_SITES {
            assert!(find(site(n), hostile).is_some());
        }
        assert!(find(site(MAX_SITES), hostile).is_none());
        let shared = find(site(7), honest).expect("a site");
        assert!(std::ptr::eq(shared, find(site(7), hostile).expect("known")));
        assert!(find(site(MAX_SITES), honest).is_some());
        assert!(find(site(MAX_SITES), hostile).is_some(), "known by now");
        let metadata = shared.static_metadata();
        assert_eq!((metadata.name(), *metadata.level()), (r"site 7\u{1b}", Level::WARN));
        assert_eq!(
            metadata.fields().iter().map(|field| field.name()).collect::<Vec<_>>(),
            ["message", "n"]
        );
    }
}
