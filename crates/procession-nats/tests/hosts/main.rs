//! Clusters and agents with a real nats-server. This program is also the agents, their workers, and where a
//! test needs one to be killed, the coordinator. `.ci/nats-server` installs a server; without one, each test
//! is reported as skipped.

/// A list of trials from the functions of a module.
macro_rules! trials {
    ($($test:ident),* $(,)?) => {
        vec![$($crate::harness::trial(concat!(module_path!(), "::", stringify!($test)), $test)),*]
    };
}

#[path = "../../../procession/tests/support/harness.rs"]
mod harness;

mod agents;
mod attaching;
mod bundles;
mod cancelling;
mod configured;
mod coordinators;
mod netcuts;
mod payloads;
mod place;
mod replicated;
mod resent;
mod security;
mod servers;
mod tasks;
mod telling;
mod works;

fn main() {
    harness::hush_panics_on_purpose();
    procession::worker::serve_if_asked(procession::Registry::collected());
    place::play_if_asked();
    coordinators::play_if_asked();
    configured::play_if_asked();
    resent::play_if_asked();
    security::play_if_asked();
    netcuts::play_if_asked();
    attaching::play_if_asked();
    let trials = [
        servers::trials(),
        agents::trials(),
        works::trials(),
        cancelling::trials(),
        payloads::trials(),
        coordinators::trials(),
        security::trials(),
        replicated::trials(),
        resent::trials(),
        netcuts::trials(),
        attaching::trials(),
        telling::trials(),
        bundles::trials(),
    ];
    let mut trials: Vec<_> = trials.into_iter().flatten().collect();
    let names: Vec<_> = trials.iter().map(|trial| trial.name().to_owned()).collect();
    let name = "hosts::configured::the_tests_that_the_document_names_exist";
    trials.push(harness::trial(name, move || configured::assert_documented_tests(&names)));
    harness::run(trials);
}
