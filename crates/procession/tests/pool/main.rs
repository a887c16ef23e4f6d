//! The process pool through its public face, with real processes. This program is also the
//! worker, and, where a test needs a whole program to go wrong, the coordinator.

/// A list of trials from the functions of a module.
macro_rules! trials {
    ($($test:ident),* $(,)?) => {
        vec![$($crate::harness::trial(concat!(module_path!(), "::", stringify!($test)), $test)),*]
    };
}

#[path = "../support/harness.rs"]
mod harness;
#[path = "../support/tasks.rs"]
mod tasks;

mod asynchronous;
mod backtraces;
mod blobs;
mod buffered_blobs;
mod chunk_limits;
mod chunks;
mod concurrency;
mod crashes;
mod deadlines;
mod demand;
mod endings;
mod environment;
mod face;
#[cfg(target_os = "linux")]
mod hostile;
#[cfg(not(target_os = "linux"))]
use self::no_attacks as hostile;
mod impostor;
mod journal;
mod kept;
mod liars;
mod maps;
mod measures;
#[cfg(not(target_os = "linux"))]
mod no_attacks;
mod orphans;
mod partials;
mod payloads;
mod plain_values;
mod plays;
mod preload_prints;
mod preloading;
#[cfg(target_os = "linux")]
mod prisoner;
#[cfg(not(target_os = "linux"))]
use self::no_attacks as prisoner;
mod program;
mod recycling;
mod replays;
mod retries;
mod says;
mod segments;
mod shared_values;
mod shutdown;
mod shutdown_in_callbacks;
mod spares;
mod spoilers;
mod starting;
mod stats;
mod stopping;
mod unruly;
mod usurped;
mod vandals;
mod works;
mod wrappers;

use libtest_mimic::Trial;

/// Plays a coordinator that goes wrong, if a test has started this program for that.
fn play_if_asked() {
    says::play_if_asked();
    segments::play_if_asked();
    hostile::play_if_asked();
    prisoner::play_if_asked();
    program::play_if_asked();
    plays::play_if_asked();
}

fn main() {
    harness::hush_panics_on_purpose();
    prisoner::start_thread_if_asked();
    impostor::play_if_asked();
    starting::swarm_if_named_so();
    let registry = preloading::add_to(liars::add_to(works::add_to(tasks::registry())));
    let registry = says::add_to(vandals::add_to(unruly::add_to(registry)));
    let registry = prisoner::add_to(hostile::add_to(preload_prints::add_to(registry)));
    let registry = shared_values::add_to(plain_values::add_to(buffered_blobs::add_to(registry)));
    let registry = blobs::add_to(chunks::add_to(backtraces::add_to(kept::add_to(registry))));
    let registry = segments::add_to(partials::add_to(journal::add_to(registry)));
    let registry = usurped::add_to(registry);
    procession::worker::serve_if_asked(spoilers::add_to(plays::add_to(registry)));
    play_if_asked();
    let trials = [
        // The longest ones first, since others run beside them.
        environment::trials(),
        payloads::trials(),
        endings::trials(),
        blobs::trials(),
        buffered_blobs::trials(),
        plain_values::trials(),
        shared_values::trials(),
        segments::trials(),
        deadlines::trials(),
        stopping::trials(),
        face::trials(),
        chunks::trials(),
        chunk_limits::trials(),
        journal::trials(),
        maps::trials(),
        measures::trials(),
        asynchronous::trials(),
        unruly::trials(),
        usurped::trials(),
        concurrency::trials(),
        crashes::trials(),
        backtraces::trials(),
        kept::trials(),
        replays::trials(),
        retries::trials(),
        recycling::trials(),
        spares::trials(),
        preload_prints::trials(),
        preloading::trials(),
        demand::trials(),
        shutdown::trials(),
        shutdown_in_callbacks::trials(),
        starting::trials(),
        stats::trials(),
        orphans::trials(),
        says::trials(),
        partials::trials(),
        spoilers::trials(),
        vandals::trials(),
        wrappers::trials(),
        liars::trials(),
        hostile::trials(),
        prisoner::trials(),
    ];
    let trials = trials.into_iter().flatten();
    harness::run(trials.map(ignored_without_linux).collect());
}

/// What needs parts of Linux that the library does without on other systems, by the beginning of the
/// names of tests.
const ONLY_ON_LINUX: &[&str] = &[
    // Elsewhere a signal handler cannot read the mappings of its process.
    "backtraces::",
    // These change the shared memory, which they find as a memory file in `/proc/self/maps`.
    "vandals::",
    "hostile::",
    "prisoner::",
    "liars::",
    // Without sealed memory files, large data is sent in pieces: no descriptor, no file is needed.
    "spoilers::what_cannot_be_received",
    "spoilers::an_output_that_cannot_be_sent",
    "spoilers::what_no_worker_can_receive",
    "spoilers::a_coordinator_that_is_short",
    "blobs::blobs_that_no_worker_can_take_in",
    // Workers are started by `/proc/self/exe`.
    "environment::it_works_after_its_program_file_was_deleted",
];

fn ignored_without_linux(trial: Trial) -> Trial {
    let needs_linux = ONLY_ON_LINUX.iter().any(|name| trial.name().starts_with(name));
    let has_linux = cfg!(all(target_os = "linux", not(feature = "portable")));
    match needs_linux && !has_linux {
        true => trial.with_ignored_flag(true),
        false => trial,
    }
}
