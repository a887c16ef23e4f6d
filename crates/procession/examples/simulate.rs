//! Drives the scheduler of the process pool through random schedules in a simulated world, and
//! checks its laws after every step.
//!
//! `cargo run --release --example simulate -- --schedules 1000000` prints the seed of a schedule that breaks a
//! law; `--seed N --schedules 1` runs that schedule again.

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use procession::simulation::{self, Summary};

fn main() -> ExitCode {
    let (mut schedules, mut first) = (1_000_000_u64, 0_u64);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().and_then(|value| value.parse().ok());
        match (arg.as_str(), value) {
            ("--schedules", Some(number)) => schedules = number,
            ("--seed", Some(number)) => first = number,
            _ => {
                eprintln!("usage: simulate [--schedules N] [--seed FIRST]");
                return ExitCode::from(2);
            }
        }
    }

    let began = Instant::now();
    let threads = num_cpus::get() as u64;
    let parts: Vec<_> = (0..threads)
        .map(|n| {
            let seeds = (first + n..first.saturating_add(schedules)).step_by(threads as usize);
            thread::spawn(move || {
                seeds
                    .map(simulation::run)
                    .try_fold(Summary::default(), |total, one| one.map(|one| total + one))
            })
        })
        .collect();
    let mut total = Summary::default();
    for part in parts {
        match part.join().expect("a schedule does not panic") {
            Ok(summary) => total = total + summary,
            Err(broken) => {
                eprintln!("{broken}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{schedules} schedules from seed {first} kept the laws: {total:#?}");
    println!("{:.1} s", began.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}
