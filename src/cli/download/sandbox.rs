//! The sandbox of the workers of a run.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{self, Path, PathBuf};

use procession::{Allow, Builder, PoolError, ProcessPool, Sandbox};
use procession_journal::{Level, LogEvent};
use procession_os::threads;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::cli::options::SandboxOption;
use crate::cli::run_log;

/// A directory that only the rights of a superuser open, which workers in a sandbox do not have.
#[derive(Debug, Error)]
#[error(
    "workers in a sandbox cannot write in {}: {error}; they have no rights of a superuser: let the user of this \
     program write in it (chown or chmod), name another directory, or use --sandbox none",
    dir.display()
)]
struct OnlySuperuserWrites {
    dir: PathBuf,
    error: io::Error,
}

/// Builds a pool whose workers are in a sandbox, with `auto` where this system has all of its layers. Where it
/// has not, the log says which is missing.
pub(super) fn build(
    pool: impl Fn() -> io::Result<Builder>,
    option: SandboxOption,
    written: &[&Path],
) -> anyhow::Result<ProcessPool> {
    let level = match option {
        // The main thread of a worker would start another one before it is confined, which is refused.
        SandboxOption::Auto if threads::main_stack_is_small() => {
            without("seccomp", "the main thread's stack is too small (ulimit -s)")
        }
        SandboxOption::Auto => match build_in(Sandbox::strict(), &pool, written) {
            Ok(pool) => return Ok(pool),
            Err(error) => match error.downcast_ref() {
                Some(PoolError::SandboxUnavailable { layer, why }) => without(layer, why),
                _ => return Err(error),
            },
        },
        SandboxOption::None => Sandbox::none(),
        SandboxOption::Basic => Sandbox::basic(),
        SandboxOption::Strict => Sandbox::strict(),
    };
    build_in(level, &pool, written)
}

/// No sandbox, with a line in the log about the layer that is missing and why.
fn without(layer: &str, why: &str) -> Sandbox {
    let fields = [("event", "sandbox"), ("sandbox", "none"), ("missing", layer), ("why", why)];
    let fields = fields.map(|(name, value)| (name.to_owned(), Value::from(value)));
    run_log::record(Level::Info, LogEvent::Other(Map::from_iter(fields)));
    Sandbox::none()
}

/// Workers need the network, certificates, and these directories to write in.
fn build_in(
    level: Sandbox,
    pool: impl Fn() -> io::Result<Builder>,
    written: &[&Path],
) -> anyhow::Result<ProcessPool> {
    let mut pool = pool()?;
    if level == Sandbox::none() {
        return Ok(pool.build()?);
    }
    let mut sandbox = level.allow(Allow::Network);
    for dir in written {
        procession_os::directories::create_all(dir)?;
        sandbox = sandbox.write(path::absolute(dir)?);
    }
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        let paths = env::var_os(name).unwrap_or_default();
        for certificates in env::split_paths(&paths).filter(|path| path.exists()) {
            sandbox = sandbox.read(path::absolute(certificates)?);
        }
    }
    for (name, value) in env::vars_os().filter(|(name, _)| is_of_network(name)) {
        pool = pool.worker_env(name, value);
    }
    // First, since a system without the layers of the sandbox leaves workers their rights.
    let pool = pool.sandbox(sandbox).build()?;
    check_without_superuser(written)?;
    Ok(pool)
}

/// Makes a file in each of the directories, in a thread without the rights of a superuser. In processes that have
/// none, what [`save::prepare`](crate::files::save::prepare) found out holds for workers as well.
#[cfg(target_os = "linux")]
fn check_without_superuser(dirs: &[&Path]) -> Result<(), OnlySuperuserWrites> {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    use std::thread;

    let Ok(mut rights) = capabilities(None) else { return Ok(()) };
    if !rights.effective.contains(CapabilitySet::DAC_OVERRIDE) {
        return Ok(());
    }
    rights.effective = CapabilitySet::empty();
    let check = || {
        // Of this thread only.
        if set_capabilities(None, rights).is_err() {
            return Ok(());
        }
        dirs.iter().try_for_each(|dir| match tempfile::tempfile_in(dir) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(OnlySuperuserWrites { dir: dir.to_path_buf(), error })
            }
            _ => Ok(()),
        })
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, check);
        // Without a thread, each file that cannot be saved is an error of its own.
        thread.map_or(Ok(()), |thread| thread.join().unwrap_or(Ok(())))
    })
}

/// Pools in a sandbox are not built there.
#[cfg(not(target_os = "linux"))]
fn check_without_superuser(_: &[&Path]) -> Result<(), OnlySuperuserWrites> {
    Ok(())
}

/// Variables about proxies and certificates, which a worker in a sandbox does not inherit.
fn is_of_network(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let names =
        ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}
