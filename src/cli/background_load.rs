//! The CPU use of other programs during a measurement: on a busy machine the results are not reliable,
//! and the reports say so.

use std::fs;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// From this share of the CPUs on, other programs are mentioned.
pub(super) const NOTEWORTHY: f64 = 0.1;

/// Measures the CPU use of other programs, from its creation on.
pub(super) struct BackgroundLoad {
    began: Instant,
    before: Option<CpuLoad>,
    /// CPU time of this process at the beginning.
    own: Duration,
}

/// The load of all CPUs together.
struct CpuLoad {
    /// Time that they have been busy since the start of the system.
    busy: Duration,
    /// Number of CPUs, which may be more than this process may use.
    cpus: usize,
}

/// The shortest time that gives a result: the system counts in hundredths of a second.
const SHORTEST: Duration = Duration::from_secs(1);

impl BackgroundLoad {
    pub(super) fn watch() -> Self {
        Self { began: Instant::now(), before: CpuLoad::now(), own: own() }
    }

    /// The share of all CPUs that other programs used; `runs` is the CPU time of the measured processes.
    pub(super) fn share(&self, runs: Duration) -> Option<f64> {
        let elapsed = self.began.elapsed();
        if elapsed < SHORTEST {
            return None;
        }
        let now = CpuLoad::now()?;
        let busy = now.busy.checked_sub(self.before.as_ref()?.busy)?;
        let others = busy.saturating_sub(runs + own().saturating_sub(self.own));
        Some(others.as_secs_f64() / (elapsed.as_secs_f64() * now.cpus as f64))
    }
}

fn own() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

impl CpuLoad {
    fn now() -> Option<Self> {
        Self::read(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn read(stat: &str) -> Option<Self> {
        let mut lines = stat.lines();
        let all = lines.next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> =
            all.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let [user, nice, system, _idle, _waiting, irq, soft_irq, stolen, ..] = ticks[..] else {
            return None;
        };
        let ticks = user + nice + system + irq + soft_irq + stolen;
        let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        let cpus = lines.take_while(|line| line.starts_with("cpu")).count();
        (cpus > 0).then_some(Self { busy: Duration::from_secs_f64(seconds), cpus })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_read_as_the_system_writes_it() {
        let load = CpuLoad::read("cpu  1 2 3 400 50 6 7 81 0 0\ncpu0 1 1\ncpu1 0 1\nintr 5\n");
        let load = load.unwrap();
        let ticks = load.busy.as_secs_f64() * rustix::param::clock_ticks_per_second() as f64;
        assert_eq!((ticks.round(), load.cpus), (100.0, 2));
        assert!(CpuLoad::read("").is_none() && CpuLoad::read("cpu 1 2\n").is_none());
    }

    #[test]
    fn what_this_process_burns_is_not_the_work_of_others() {
        let machine = BackgroundLoad::watch();
        assert_eq!(machine.share(Duration::ZERO), None, "too early to tell");
        let before = own();
        while machine.began.elapsed() < SHORTEST * 2 {
            std::hint::spin_loop();
        }
        let burnt = (own() - before).as_secs_f64();
        let all = 2.0 * CpuLoad::now().unwrap().cpus as f64;
        let share = machine.share(Duration::ZERO).unwrap();
        assert!((0.0..1.0 - burnt / all + 0.1).contains(&share), "{share}, {burnt} s of {all} s");
    }
}
