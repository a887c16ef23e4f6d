//! Job control: at a Ctrl-Z the program stops its workers with itself, and as process 1 of a container
//! it reaps orphans.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use std::{fs, io, process, thread};

use rustix::process::{Pid, WaitOptions, waitpid};
use signal_hook::consts::{SIGSTOP, SIGTSTP};
use signal_hook::low_level::raise;

use procession::{resume_all, suspend_all};
use procession_os::signals::is_ignored;

use super::signals;

/// Starts the threads for this, where they are needed.
pub(super) fn watch() -> io::Result<()> {
    if !is_ignored(SIGTSTP) {
        stop_workers_with_this_process()?;
    }
    if process::id() == 1 {
        thread::Builder::new().name("reaper".to_owned()).spawn(reap_orphans)?;
    }
    Ok(())
}

fn stop_workers_with_this_process() -> io::Result<()> {
    // A signal that comes twice counts as one: none was taken yet.
    let mut signals = signals::register(&[SIGTSTP])?;
    thread::Builder::new().name("job-control".to_owned()).spawn(move || {
        for _ in signals.forever() {
            suspend_all();
            // Returns when the process is continued.
            let _ = raise(SIGSTOP);
            resume_all();
        }
    })?;
    Ok(())
}

/// Interval of the search for orphans that have ended.
const SEARCH_INTERVAL: Duration = Duration::from_secs(5);
/// A zombie that is older is an orphan: a process that this program started is reaped earlier.
const ORPHAN_AGE: Duration = Duration::from_secs(15);

/// Reaps orphans, which become children of process 1.
fn reap_orphans() {
    let mut seen = HashMap::new();
    loop {
        reap_if_seen_for(&mut seen, ORPHAN_AGE);
        thread::sleep(SEARCH_INTERVAL);
    }
}

/// Reaps the zombies that were first seen this long ago.
fn reap_if_seen_for(seen: &mut HashMap<i32, Instant>, age: Duration) {
    let zombies = zombies_of(process::id());
    seen.retain(|pid, _| zombies.contains(pid));
    for pid in zombies {
        if seen.entry(pid).or_insert_with(Instant::now).elapsed() >= age {
            let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        }
    }
}

/// The children of a process that have ended and are not reaped.
fn zombies_of(parent: u32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_zombie = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name before these fields may contain any character; the last parenthesis ends it.
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        fields.next() == Some("Z")
            && fields.next().and_then(|ppid| ppid.parse().ok()) == Some(parent)
    };
    pids.filter(is_zombie).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_is_reaped_only_after_a_while() {
        if !fs::exists("/proc/self/stat").unwrap_or_default() {
            return;
        }
        #[expect(clippy::zombie_processes, reason = "what is tested")]
        let child = process::Command::new("true").spawn().expect("a process");
        let pid = i32::try_from(child.id()).expect("a process id");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !zombies_of(process::id()).contains(&pid) {
            assert!(Instant::now() < deadline, "it never ended");
            thread::sleep(Duration::from_millis(2));
        }
        let mut seen = HashMap::new();
        reap_if_seen_for(&mut seen, Duration::from_secs(3600));
        assert!(zombies_of(process::id()).contains(&pid));
        seen.insert(pid, Instant::now() - Duration::from_secs(1));
        seen.retain(|&other, _| other == pid);
        // Other tests have children, too.
        for zombie in zombies_of(process::id()) {
            seen.entry(zombie).or_insert_with(Instant::now);
        }
        reap_if_seen_for(&mut seen, Duration::from_secs(1));
        assert!(!zombies_of(process::id()).contains(&pid));
    }
}
