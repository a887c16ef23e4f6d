//! Measures what namespaces and control groups cost at the start of a process: the tables in `SECURITY.md`. Only on
//! Linux.
//!
//! ```console
//! $ cargo run --release -p procession-os --features sandbox --example namespaces -- 200
//! ```
//!
//! The argument is the number of processes for each row, 200 by default. The program starts itself as these processes,
//! one for each row in turn. Each process makes the namespaces of its row, prints how much CPU time that took, and
//! ends. The second column is the whole CPU time of such a process, less that of a process that makes no namespaces. So
//! it includes what the end costs. For control groups it is the CPU time that the starting process uses for a start,
//! less that for a start without a group.

#![allow(unsafe_code, reason = "no safe interface makes a namespace")]

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("Only Linux has namespaces.");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::env;
    use std::ffi::OsString;
    use std::fs::File;
    use std::io::{Error, Result};
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use procession_os::cgroup::{self, Group, GroupBounds};
    use procession_os::spawn::{Image, spawn};
    use rustix::process::{WaitOptions, waitpid};
    use rustix::time::{ClockId, clock_gettime};

    /// Names of namespaces, and their flags.
    const KINDS: [(&str, libc::c_int); 6] = [
        ("none", 0),
        ("users", libc::CLONE_NEWUSER),
        ("users, mounts", libc::CLONE_NEWUSER | libc::CLONE_NEWNS),
        ("users, interprocess communication", libc::CLONE_NEWUSER | libc::CLONE_NEWIPC),
        ("users, process ids", libc::CLONE_NEWUSER | libc::CLONE_NEWPID),
        ("users, network", libc::CLONE_NEWUSER | libc::CLONE_NEWNET),
    ];

    /// The argument before the flags, in a process that makes namespaces.
    const MAKE: &str = "--make";

    pub(super) fn main() -> Result<()> {
        let args: Vec<_> = env::args().skip(1).collect();
        if let [make, flags] = &args[..]
            && make == MAKE
        {
            return make_namespaces(flags.parse().expect("flags"));
        }
        let rounds: usize = match args.first() {
            Some(number) => number.parse().expect("a number of processes"),
            None => 200,
        };
        let mut made = KINDS.map(|_| Vec::with_capacity(rounds));
        let mut all = KINDS.map(|_| Vec::with_capacity(rounds));
        for _ in 0..rounds {
            for (n, (_, flags)) in KINDS.iter().enumerate() {
                let before = cpu_of_children();
                let args = [MAKE, &flags.to_string()];
                let output = Command::new(env::current_exe()?).args(args).output()?;
                all[n].push(cpu_of_children() - before);
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let nanos = text.trim().parse().map_err(|_| {
                    Error::other(String::from_utf8_lossy(&output.stderr).into_owned())
                })?;
                made[n].push(Duration::from_nanos(nanos));
            }
        }
        println!("CPU time in microseconds, medians of {rounds} processes:");
        let none = median(&mut all[0]);
        for (n, (name, _)) in KINDS.iter().enumerate() {
            let (made, more) = (median(&mut made[n]), median(&mut all[n]).saturating_sub(none));
            println!("{name:<36} made {:>5}, in all {:>5}", made.as_micros(), more.as_micros());
        }
        measure_groups(rounds)
    }

    fn median(times: &mut [Duration]) -> Duration {
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// User and system, of the processes that have ended and were waited for.
    fn cpu_of_children() -> Duration {
        // SAFETY: all fields are numbers; the call fills them in.
        let usage = unsafe {
            let mut usage = std::mem::zeroed::<libc::rusage>();
            libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
            usage
        };
        let of = |time: libc::timeval| {
            Duration::new(time.tv_sec.unsigned_abs(), 1000 * time.tv_usec.unsigned_abs() as u32)
        };
        of(usage.ru_utime) + of(usage.ru_stime)
    }

    fn cpu_of_this() -> Duration {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    }

    /// Makes the namespaces, and prints the nanoseconds.
    fn make_namespaces(flags: libc::c_int) -> Result<()> {
        let before = cpu_of_this();
        // SAFETY: this process has one thread, and has opened nothing that a namespace would hide.
        if unsafe { libc::unshare(flags) } != 0 {
            return Err(Error::last_os_error());
        }
        println!("{}", (cpu_of_this() - before).as_nanos());
        Ok(())
    }

    fn measure_groups(rounds: usize) -> Result<()> {
        let delegated = match cgroup::delegated() {
            Ok(delegated) => delegated,
            Err(why) => {
                println!("no control groups: {why}");
                return Ok(());
            }
        };
        let base = delegated.join(format!("procession-example-{}", std::process::id()));
        std::fs::create_dir(&base)?;
        let enable = |controller| {
            [&*delegated, &*base].iter().try_for_each(|dir| cgroup::enable(dir, controller))
        };
        let bounds = GroupBounds {
            memory: enable("memory").is_ok().then_some(1 << 30),
            threads: enable("pids").is_ok().then_some(1024),
        };
        let start = |group: Option<&Group>| {
            let null = || File::open("/dev/null").map(OwnedFd::from);
            let (path, no_variables) =
                (Path::new("/bin/true"), [(); 0].map(|()| <(OsString, _)>::default()));
            let image = Image::new(path, path.as_os_str(), &[], |_| false, no_variables)?;
            let pid = spawn(image, [null()?, null()?, null()?], None, group)?;
            waitpid(Some(pid), WaitOptions::empty())?;
            Ok::<_, Error>(())
        };
        let mut times = [(); 2].map(|()| Vec::with_capacity(rounds));
        for n in 0..rounds {
            let before = cpu_of_this();
            start(None)?;
            let between = cpu_of_this();
            let group = Group::create(base.join(n.to_string()), bounds)?;
            start(Some(&group))?;
            group.end(Duration::from_secs(1));
            times[0].push(between - before);
            times[1].push(cpu_of_this() - between);
        }
        let [without, with] = times.each_mut().map(|times| median(times).as_micros());
        println!("a start, with {bounds:?}: {with}; without a group: {without}");
        cgroup::remove_all(&base)
    }
}
