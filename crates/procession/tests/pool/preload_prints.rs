//! What a preload has printed and not flushed when its process is copied.

#![allow(unsafe_code, reason = "a library in C would print like this")]

use std::sync::{Arc, Mutex};

use libtest_mimic::Trial;
use procession::{Context, Executor, Failure, Registry, Shutdown, Task};
use serde::{Deserialize, Serialize};

use crate::tasks::{Pid, quiet};

pub(crate) fn trials() -> Vec<Trial> {
    trials![what_a_preload_has_printed_is_told_once]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<PrintHalfLines>()
}

/// Prints half a line from Rust and one from C. Both buffer it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PrintHalfLines;

impl Task for PrintHalfLines {
    const NAME: &'static str = "print half lines";
    type Output = ();

    fn run(self, _: &Context) -> Result<(), Failure> {
        print!("from Rust ");
        // SAFETY: the text ends with a zero byte and has no placeholders.
        assert_eq!(unsafe { libc::printf(c"from C ".as_ptr()) }, 7);
        Ok(())
    }
}

/// Otherwise each copy would print it at its end.
fn what_a_preload_has_printed_is_told_once() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lines);
    let builder = quiet().workers(3).preload(PrintHalfLines).on_output(move |output| {
        told.lock().expect("no panic").push(output.line.to_owned());
    });
    let pool = builder.build().expect("a pool");
    for future in [(); 30].map(|()| pool.submit(Pid())) {
        future.result().expect("an output");
    }
    pool.shutdown(Shutdown::Wait);
    let lines = lines.lock().expect("no panic");
    let count = |what: &str| lines.iter().map(|line| line.matches(what).count()).sum::<usize>();
    let counts = (count("from Rust"), count("from C"));
    assert!(counts.0 > 0 && counts.1 > 0, "{lines:?}");
    if cfg!(all(target_os = "linux", not(feature = "portable"))) {
        assert_eq!(counts, (1, 1), "{lines:?}");
    }
}
