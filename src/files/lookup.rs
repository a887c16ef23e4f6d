//! Resolves the name of a server to its addresses.
//!
//! The client resolves the name before each request, also if it has a connection to the server already, and a
//! lookup with a timeout needs a thread. So an IP address is used without a lookup, and the addresses of a
//! name are cached for ten seconds. The client's own resolver panics where no thread can be started;
//! this one retries for a while and then resolves the name in the calling thread, with the system's
//! timeout alone.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{NextTimeout, time};

use procession_os::threads::ThreadSpec;

/// How long the addresses of a name are used.
const FRESH: Duration = Duration::from_secs(10);

/// A resolver that caches the addresses of names.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    found: Mutex<HashMap<HostAndPort, (Instant, ResolvedSocketAddrs)>>,
}

/// A host in lower case, and a port.
type HostAndPort = (String, u16);

impl Lookup {
    fn found(&self) -> MutexGuard<'_, HashMap<HostAndPort, (Instant, ResolvedSocketAddrs)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let Some(server) = server(uri) else { return look_up(uri, config, timeout) };
        if let Some(ip) = address(&server.0) {
            let mut addresses = self.empty();
            addresses.push(SocketAddr::new(ip, server.1));
            return Ok(addresses);
        }
        if let Some((at, addresses)) = self.found().get(&server)
            && at.elapsed() < FRESH
        {
            return Ok(addresses.clone());
        }
        let addresses = look_up(uri, config, timeout)?;
        self.found().insert(server, (Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

/// The stack of a thread that resolves a name, in bytes.
const STACK: usize = 512 * 1024;

/// Resolves a name with the system's resolver, in another thread if there is a timeout.
fn look_up(uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
    let in_this_thread = move |uri: &Uri, config: &Config| {
        // Without a timeout this resolver starts no thread.
        let endless = NextTimeout { after: time::Duration::NotHappening, ..timeout };
        DefaultResolver::default().resolve(uri, config, endless)
    };
    if timeout.after.is_not_happening() {
        return in_this_thread(uri, config);
    }
    let began = Instant::now();
    let (sender, answer) = mpsc::channel();
    let (its_uri, its_config) = (uri.clone(), config.clone());
    let body = move || sender.send(in_this_thread(&its_uri, &its_config)).ok();
    let thread = ThreadSpec::new("lookup").with_stack(Some(STACK));
    if thread.start_with_retries(body).is_err() {
        return in_this_thread(uri, config);
    }
    let left = timeout.after.saturating_sub(began.elapsed());
    answer.recv_timeout(left).unwrap_or_else(|_| Err(Error::Timeout(timeout.reason)))
}

fn server(uri: &Uri) -> Option<HostAndPort> {
    let usual = match uri.scheme_str()? {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    Some((uri.host()?.to_ascii_lowercase(), uri.port_u16().unwrap_or(usual)))
}

/// The address, if the host is given as one.
pub(super) fn address(host: &str) -> Option<IpAddr> {
    let ip_v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    ip_v6.unwrap_or(host).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::Timeout;
    use ureq::unversioned::transport::time;

    fn resolve(lookup: &Lookup, url: &str) -> Result<Vec<SocketAddr>, Error> {
        let soon = NextTimeout {
            after: time::Duration::from_secs(10),
            reason: Timeout::Resolve,
            ..NextTimeout::default()
        };
        let found = lookup.resolve(&url.parse().unwrap(), &Config::default(), soon);
        found.map(|addresses| addresses.to_vec())
    }

    #[test]
    fn an_address_is_taken_as_it_is() {
        let lookup = Lookup::default();
        for (url, address) in [
            ("http://127.0.0.1:8001/flags", "127.0.0.1:8001"),
            ("https://10.0.0.1", "10.0.0.1:443"),
            ("http://[::1]/flags", "[::1]:80"),
        ] {
            assert_eq!(resolve(&lookup, url).unwrap(), [address.parse().unwrap()]);
        }
        assert!(lookup.found().is_empty());
    }

    #[test]
    fn a_name_is_remembered_for_a_while() {
        let lookup = Lookup::default();
        let first = resolve(&lookup, "http://localhost:8001").unwrap();
        assert!(first.iter().all(|found| found.ip().is_loopback() && found.port() == 8001));
        let server = ("localhost".to_owned(), 8001);
        let mark = || ResolvedSocketAddrs::from_fn(|_| "10.0.0.1:1".parse().unwrap());
        let long_ago = Instant::now().checked_sub(FRESH).unwrap();
        lookup.found().insert(server.clone(), (Instant::now(), mark()));
        assert_eq!(resolve(&lookup, "http://LOCALHOST:8001/x").unwrap(), []);
        lookup.found().insert(server, (long_ago, mark()));
        assert_eq!(resolve(&lookup, "http://localhost:8001").unwrap(), first);
    }
}
