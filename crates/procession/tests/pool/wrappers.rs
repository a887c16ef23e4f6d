//! Worker programs that start the program as another process and end before it. The pool refuses them with a message, and
//! leaves no process behind.

use std::fs;

use libtest_mimic::Trial;
use procession::{Executor, Shutdown};

use crate::harness::eventually;
use crate::starting::{Script, refuses};
use crate::tasks::quiet;

pub(crate) fn trials() -> Vec<Trial> {
    trials![a_wrapper_that_ends_before_the_program_is_told_so_and_leaves_nothing_running]
}

/// What such wrappers do with the program THIS.
const LEAVING: [&str; 8] = [
    "setsid -f 'THIS'",
    "exec setsid -f 'THIS'",
    "'THIS' &",
    "'THIS' <&0 &",
    "exec 3<&0; 'THIS' <&3 & exit",
    "nohup 'THIS' <&0 & sleep 0.3",
    "(setsid 'THIS' <&0 &); exit 0",
    "(sleep 0.3; exec 'THIS') <&0 &",
];

/// Processes in whose command line this text is.
fn running(text: &str) -> usize {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}

fn a_wrapper_that_ends_before_the_program_is_told_so_and_leaves_nothing_running() {
    if cfg!(not(all(target_os = "linux", not(feature = "portable")))) {
        crate::harness::skip("it is about Linux");
    }
    let this = std::env::current_exe().expect("a path");
    for text in LEAVING {
        let script = Script::new("");
        let program = script.path().with_file_name("program");
        std::os::unix::fs::symlink(&this, &program).expect("a link");
        script.say(&text.replace("THIS", &program.display().to_string()));
        let pool = quiet().workers(2).worker_program(script.path()).build().expect("a pool");
        let words = refuses(&pool).to_string();
        // Whether the pool hears of the other process before the end of the wrapper is a matter of luck.
        assert!(words.contains("with `exec`"), "{text}: {words}");
        pool.shutdown(Shutdown::Wait);
        assert!(script.starts() <= 2, "{text}: {} starts", script.starts());
        let program = program.display().to_string();
        eventually("the end of all of its processes", || running(&program) == 0);
    }
}
