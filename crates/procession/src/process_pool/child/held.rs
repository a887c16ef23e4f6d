//! Dead processes that a tracer keeps: until it lets go, the system does not report their end.

use std::fs;

/// Whether all threads of the process are dead and one has a tracer. A dead process without one is reaped in a
/// moment.
pub(super) fn is_dead_but_held(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    // A thread that has gone since then has no state.
    let threads: Vec<_> = tasks.flatten().filter_map(|task| ThreadState::of(&task)).collect();
    threads.iter().all(|thread| thread.is_dead) && threads.iter().any(|thread| thread.is_traced)
}

/// What `/proc` says about a thread.
struct ThreadState {
    is_dead: bool,
    /// By a process of this namespace of process ids.
    is_traced: bool,
}

impl ThreadState {
    fn of(task: &fs::DirEntry) -> Option<Self> {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        // The name, which may be anything, has no line breaks there.
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let is_dead = field("State:")?.trim_start().starts_with('Z');
        let is_traced = field("TracerPid:").is_some_and(|tracer| tracer.trim() != "0");
        Some(Self { is_dead, is_traced })
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_dead_process_that_nothing_traces_is_not_held() {
        let mut child = std::process::Command::new("true").spawn().expect("a process");
        let until = Instant::now() + Duration::from_secs(30);
        let stat = format!("/proc/{}/stat", child.id());
        while !fs::read_to_string(&stat).expect("a process").contains(") Z ") {
            assert!(Instant::now() < until, "it does not end");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!is_dead_but_held(child.id()));
        child.wait().expect("a status");
        assert!(!is_dead_but_held(child.id()));
        assert!(!is_dead_but_held(std::process::id()));
    }
}
