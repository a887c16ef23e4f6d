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

mod blobs;
mod chunks;
mod concurrency;
mod crashes;
mod deadlines;
mod demand;
mod endings;
mod environment;
mod face;
mod impostor;
mod liars;
mod orphans;
mod payloads;
mod plays;
mod program;
mod recycling;
mod retries;
mod says;
mod shutdown;
mod shutdown_in_callbacks;
mod spoilers;
mod starting;
mod unruly;
mod vandals;
mod works;

fn main() {
    harness::hush_panics_on_purpose();
    impostor::play_if_asked();
    starting::swarm_if_named_so();
    let registry = liars::add_to(works::add_to(tasks::registry()));
    let registry = says::add_to(vandals::add_to(unruly::add_to(registry)));
    let registry = blobs::add_to(chunks::add_to(registry));
    procession::worker::serve_if_asked(spoilers::add_to(plays::add_to(registry)));
    says::play_if_asked();
    program::play_if_asked();
    plays::play_if_asked();
    let trials = [
        // The longest ones first, since others run beside them.
        environment::trials(),
        payloads::trials(),
        endings::trials(),
        blobs::trials(),
        deadlines::trials(),
        face::trials(),
        chunks::trials(),
        unruly::trials(),
        concurrency::trials(),
        crashes::trials(),
        retries::trials(),
        recycling::trials(),
        demand::trials(),
        shutdown::trials(),
        shutdown_in_callbacks::trials(),
        starting::trials(),
        orphans::trials(),
        says::trials(),
        spoilers::trials(),
        vandals::trials(),
        liars::trials(),
    ];
    harness::run(trials.into_iter().flatten().collect());
}
