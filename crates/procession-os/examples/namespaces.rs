//! Measures what namespaces cost at the start of a process: the table in `SECURITY.md`. Only on Linux.
//!
//! ```console
//! $ cargo run --release -p procession-os --example namespaces -- 200
//! ```
//!
//! The argument is the number of processes for each row of the table, 200 by default. The program starts itself as these
//! processes, one for each row in turn. Each process makes the namespaces of its row and prints how long that took.

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
    use std::io::{Error, Result};
    use std::process::Command;
    use std::time::Instant;

    /// Names of namespaces, and their flags.
    const KINDS: [(&str, libc::c_int); 5] = [
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
        let mut times = KINDS.map(|_| Vec::with_capacity(rounds));
        for _ in 0..rounds {
            for ((_, flags), times) in KINDS.iter().zip(&mut times) {
                let args = [MAKE, &flags.to_string()];
                let made = Command::new(env::current_exe()?).args(args).output()?;
                let text = String::from_utf8_lossy(&made.stdout).into_owned();
                times.push(text.trim().parse::<u128>().map_err(|_| {
                    Error::other(String::from_utf8_lossy(&made.stderr).into_owned())
                })?);
            }
        }
        println!("time to make them, in microseconds, of {rounds} processes:");
        for ((name, _), times) in KINDS.iter().zip(&mut times) {
            times.sort_unstable();
            let at = |part: usize| times[(times.len() - 1) * part / 4] / 1000;
            let [quarter, median, three] = [1, 2, 3].map(at);
            println!("{name:<36} median {median:>5}, half of them {quarter} to {three}");
        }
        Ok(())
    }

    /// Makes the namespaces, and prints the nanoseconds.
    fn make_namespaces(flags: libc::c_int) -> Result<()> {
        let began = Instant::now();
        // SAFETY: this process has one thread, and has opened nothing that a namespace would hide.
        if unsafe { libc::unshare(flags) } != 0 {
            return Err(Error::last_os_error());
        }
        println!("{}", began.elapsed().as_nanos());
        Ok(())
    }
}
