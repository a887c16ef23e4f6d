//! What tasks cost on the three executors, and where it comes from.
//!
//! ```text
//! cargo bench                         all of it, in a few minutes
//! cargo bench -- dispatch payload     what has this in its name
//! cargo test --bench pool             each once, to see that it works
//! ```
//!
//! All benchmarks are one program, so it is linked once. It is also the worker of its pools, and the process at
//! the other end of the raw socket that they are compared with. On a busy machine two runs differ by more than
//! most changes of the code do: compare figures of one run.

mod beside_rayon;
mod dispatch;
mod echo;
mod function;
mod journal;
mod lives;
mod map;
mod payload;
mod placement;
mod records;
mod round_trip;
mod scheduler;
mod tasks;

use std::time::Duration;
use std::{env, process, thread};

use procession::{Registry, worker};

fn main() {
    placement::keep_if_asked();
    let registry = tasks::add_to(Registry::collected().with::<function::Sum>());
    let registry = records::add_to(journal::add_to(registry));
    worker::serve_if_asked(registry);
    echo::serve_if_asked();
    if !is_measured() {
        end_after(Duration::from_secs(120));
    }
    // What other test programs take, and this one does not know.
    match env::args().any(|arg| arg.starts_with("--test-threads")) {
        true => divan::Divan::default().test_benches(),
        false => divan::main(),
    }
}

/// Whether this run measures; else it only tries each benchmark once, and may take smaller ones.
fn is_measured() -> bool {
    env::args().any(|arg| arg == "--bench")
}

/// A benchmark that hangs is to fail in a test, not to keep it waiting.
fn end_after(time: Duration) {
    thread::spawn(move || {
        thread::sleep(time);
        eprintln!("still not done after {time:?}");
        process::exit(1);
    });
}
