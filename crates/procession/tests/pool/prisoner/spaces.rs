//! The layer `namespaces`: what a worker has with it, and what is said where the system refuses it.

use std::time::Duration;
use std::{env, fs, process, thread};

use procession::{Context, Executor, Failure, PoolError, Sandbox, Task, TaskError};
use serde::{Deserialize, Serialize};

use super::{become_another_user, pool};
use crate::harness::skip;
use crate::program;
use crate::tasks::{Echo, quiet, succeeds_with};

/// Starts threads until the system refuses one, or until there is this number. The output is the number that started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bomb(pub usize);

impl Task for Bomb {
    const NAME: &'static str = "bomb";
    type Output = usize;

    fn run(self, _: &Context) -> Result<usize, Failure> {
        let sleep = || thread::sleep(Duration::from_secs(20));
        let start = || thread::Builder::new().stack_size(16 * 1024).spawn(sleep).ok();
        let started = (0..self.0).map_while(|_| start()).count();
        // Meanwhile another worker gets the next one.
        thread::sleep(Duration::from_secs(1));
        Ok(started)
    }
}

const VARIABLE: &str = "PROCESSION_TEST_NAMESPACES";

pub(super) fn play_if_asked() {
    match env::var(VARIABLE).as_deref() {
        Ok("bomb") => starts_threads(),
        Ok("none") => has_no_namespaces(),
        _ => return,
    }
    println!("it works");
    process::exit(0);
}

fn starts_threads() {
    const MOST: usize = 1_024;
    become_another_user();
    let pool = pool(Sandbox::strict().require_namespaces());
    // Both workers have all that they may have.
    let bombs = [Bomb(2 * MOST), Bomb(2 * MOST)].map(|bomb| pool.submit(bomb));
    for bomb in bombs {
        let started = bomb.result().expect("an output");
        assert!((MOST / 2..MOST).contains(&started), "{started} threads");
    }
    // The user can start others.
    let beside = quiet().workers(1).build().expect("a pool");
    succeeds_with(&beside, 20);
}

/// This program in a namespace where nobody may make another one.
fn has_no_namespaces() {
    // SAFETY: numbers alone; this process has one thread.
    let user = unsafe { libc::geteuid() };
    // SAFETY: the same.
    let is_refused = unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0;
    if is_refused || fs::write("/proc/self/uid_map", format!("0 {user} 1")).is_err() {
        println!("skipped: there are no namespaces here");
        return;
    }
    fs::write("/proc/sys/user/max_user_namespaces", "0").expect("a setting of this namespace");
    let required = quiet().workers(1).sandbox(Sandbox::strict().require_namespaces()).build();
    let broken = required.expect("a pool").submit(Echo("1".to_owned())).result();
    assert!(
        matches!(&broken, Err(TaskError::PoolBroken(PoolError::SandboxUnavailable { layer, why }))
            if layer == "namespaces" && why.contains("refuses a namespace")),
        "{broken:?}"
    );
    let pool = pool(Sandbox::strict());
    let report = pool.sandbox_report().expect("a report");
    let missing = |name| {
        let all = report.layers().iter();
        all.filter(|layer| layer.missing.is_some()).any(|layer| layer.layer == name)
    };
    assert!(missing("namespaces") && report.is_complete(), "{report}");
    let pool = self::pool(Sandbox::strict().require_namespaces().best_effort());
    let report = pool.sandbox_report().expect("a report");
    assert!(!report.is_complete(), "{report}");
}

#[track_caller]
fn plays(part: &str) {
    // Where there is no sandbox at all, the test is skipped here and not in the other process.
    let report = pool(Sandbox::strict()).sandbox_report().expect("a report");
    if report.layers().iter().any(|layer| layer.layer == "namespaces" && layer.missing.is_some()) {
        skip(&report.to_string());
    }
    program::assert_works(program::command("nothing else").env(VARIABLE, part));
}

pub(super) fn a_required_namespace_that_is_missing_is_a_typed_error() {
    plays("none");
}

pub(super) fn threads_are_bounded_for_another_user() {
    if !rustix::process::geteuid().is_root() {
        skip("only a superuser can become another user");
    }
    plays("bomb");
}
