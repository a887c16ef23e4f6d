//! Worker programs that start the program as another process and end before it. The pool refuses them with a message, and
//! leaves no process behind.

use std::fs;
use std::process::Command;

use libtest_mimic::Trial;
use procession::{Executor, PoolError, Shutdown};

use crate::harness::{eventually, skip};
use crate::starting::{Script, refuses};
use crate::tasks::quiet;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_wrapper_that_ends_before_the_program_is_told_so_and_leaves_nothing_running,
        a_wrapper_that_replaces_the_standard_input_for_another_user_is_told_so,
    ]
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

fn a_wrapper_that_replaces_the_standard_input_for_another_user_is_told_so() {
    const AS_ANOTHER: &str = "setpriv --reuid=12345 --clear-groups --";
    let this = std::env::current_exe().expect("a path");
    let trial = format!("{AS_ANOTHER} test -x '{}'", this.display());
    if !Command::new("sh").args(["-c", &trial]).status().is_ok_and(|status| status.success()) {
        skip("this user cannot become another one, or that one cannot run this program");
    }
    // A program that does not know that it is a worker would run the tests with this name.
    let run = format!("exec {AS_ANOTHER} '{}' no_such_test < /dev/null", this.display());
    let closed = "for fd in 3 4 5 6 7 8 9; do eval \"exec $fd>&-\"; done;";
    for text in [run.clone(), format!("{closed} {run}")] {
        let script = Script::new(&text);
        let pool = quiet().workers(2).worker_program(script.path()).build().expect("a pool");
        let error = refuses(&pool);
        assert!(matches!(error, PoolError::WorkerWrapped { .. }), "{text}: {error:?}");
        let words = error.to_string();
        assert!(words.contains("it replaced the standard input of the program"), "{words}");
    }
}
