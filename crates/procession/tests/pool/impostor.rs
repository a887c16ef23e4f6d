//! Processes that do not behave as workers: this program, started as a worker, with a variable that says
//! what it does wrong.

use std::time::Duration;
use std::{env, io, process, thread};

use procession::{Builder, Executor, PoolError, ProcessPool};
use serde_json::json;

use crate::tasks;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guise {
    /// Pays no heed to having been started as a worker.
    NeverServes,
    /// Builds a pool, whatever comes of it, and serves then.
    BuildsFirst,
    /// Asks whether it is to serve, and builds a pool then.
    AsksAndBuilds,
    /// Ends without a word.
    Ends,
    /// Does other things, for ever.
    GoesOn,
    /// Serves, but not for long.
    DiesWhenReady,
    /// Is of another build.
    OfAnotherBuild,
    /// Says something else than hello.
    Mumbles,
    /// Knows none of the tasks.
    Ignorant,
    /// Panics before it serves.
    Panics,
}

const GUISES: [Guise; 10] = [
    Guise::NeverServes,
    Guise::BuildsFirst,
    Guise::AsksAndBuilds,
    Guise::Ends,
    Guise::GoesOn,
    Guise::DiesWhenReady,
    Guise::OfAnotherBuild,
    Guise::Mumbles,
    Guise::Ignorant,
    Guise::Panics,
];

const VARIABLE: &str = "PROCESSION_TEST_GUISE";

/// A pool whose workers all come in this guise.
pub(crate) fn pool_of(guise: Guise) -> Builder {
    tasks::quiet().workers(2).worker_env(VARIABLE, format!("{guise:?}"))
}

pub(crate) fn play_if_asked() {
    let Ok(name) = env::var(VARIABLE) else { return };
    let guise = GUISES.into_iter().find(|guise| format!("{guise:?}") == name);
    let guise = guise.expect("a guise");
    match guise {
        Guise::NeverServes => never_serve(),
        Guise::BuildsFirst => {
            let _refused = pool_of(guise).build();
            procession::worker::serve_if_asked(tasks::registry());
        }
        Guise::AsksAndBuilds => {
            let asked = procession::worker::asked();
            let _refused = pool_of(guise).build().map(|pool| pool.submit(tasks::Pid()).result());
            asked.expect("it was asked").serve(tasks::registry()).expect("it serves");
        }
        Guise::Ends => {}
        Guise::Panics => panic!("there are no settings\nin the place for them"),
        Guise::GoesOn => loop {
            thread::park();
        },
        Guise::DiesWhenReady => {
            thread::spawn(|| {
                thread::sleep(Duration::from_millis(100));
                process::exit(7);
            });
            procession::worker::serve_if_asked(tasks::registry());
        }
        Guise::OfAnotherBuild => {
            say_hello("the build of yesterday");
            thread::park();
        }
        Guise::Mumbles => mumble(),
        Guise::Ignorant => procession::worker::serve_if_asked(procession::Registry::new()),
    }
    process::exit(0);
}

fn never_serve() -> ! {
    match ProcessPool::new() {
        Err(error @ PoolError::NotServing) => eprintln!("{error}"),
        other => eprintln!("a pool was built, or another error came: {other:?}"),
    }
    process::exit(1);
}

fn say_hello(build: &str) {
    let (pid, server) = (process::id(), None::<String>);
    say(&json!({"Hello": {"protocol": 1, "build": build, "pid": pid, "server": server}}));
}

/// Sends a message in the form of the handshake.
fn say(message: &serde_json::Value) {
    let message = [&[1], message.to_string().as_bytes()].concat();
    rustix::net::send(io::stdin(), &message, rustix::net::SendFlags::empty()).expect("a message");
}

fn mumble() -> ! {
    say(&json!({"Hello": {"greeting": "good morning"}}));
    loop {
        thread::park();
    }
}
