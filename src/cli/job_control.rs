//! What the `coordinator` program does beside its job for the system around it: it stops its workers
//! with itself at a Ctrl-Z, and as process 1 of a container it reaps what others have left.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use std::{fs, io, process, thread};

use rustix::process::{Pid, WaitOptions, waitpid};
use signal_hook::consts::{SIGSTOP, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::raise;

use procession::{resume_all, suspend_all};
use procession_os::signals::is_ignored;

/// Starts the threads that do so, where they are needed.
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
    let mut signals = Signals::new([SIGTSTP])?;
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

/// How often it is looked for orphans that have ended.
const LOOK: Duration = Duration::from_secs(5);
/// How long a process that was started here may take to be reaped by what started it.
const RESERVED: Duration = Duration::from_secs(15);

/// Orphans become children of process 1. Those that were started here are reaped by what started
/// them, at once; whatever stays is an orphan.
fn reap_orphans() {
    let mut seen = HashMap::new();
    loop {
        reap_if_seen_for(&mut seen, RESERVED);
        thread::sleep(LOOK);
    }
}

fn reap_if_seen_for(seen: &mut HashMap<i32, Instant>, reserved: Duration) {
    let zombies = zombies_of(process::id());
    seen.retain(|pid, _| zombies.contains(pid));
    for pid in zombies {
        if seen.entry(pid).or_insert_with(Instant::now).elapsed() >= reserved {
            let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        }
    }
}

/// The children of a process that have ended and were not reaped.
fn zombies_of(parent: u32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_zombie = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name before these may contain anything, but no later parenthesis.
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
    fn a_zombie_is_reaped_only_after_it_was_left_for_a_while() {
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
        // Only this one: other tests have children, too.
        for zombie in zombies_of(process::id()) {
            seen.entry(zombie).or_insert_with(Instant::now);
        }
        reap_if_seen_for(&mut seen, Duration::from_secs(1));
        assert!(!zombies_of(process::id()).contains(&pid));
    }
}
