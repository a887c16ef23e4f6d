//! Certificates, keys and permissions: with the configuration of docs/hosts.md, agents and coordinators do all
//! that they do without it, and what is not theirs is refused.

use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerError};
use libtest_mimic::Trial;
use procession::{
    Blob, Executor, PoolError, ProcessPool, Registry, Shutdown, TaskError, as_completed,
};
use procession_nats::{Agent, Cluster, ClusterBuilder, ConnectSettings};

use crate::configured::{ConfiguredServer, documented, free_port, tls, with_tls};
use crate::harness::{Gate, eventually};
use crate::place::{self, end_with_input};
use crate::tasks::{gated, half, hang, noted, notes, reverse, square};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        with_the_documented_permissions_agents_and_coordinators_do_all_that_they_do,
        what_is_not_an_agents_is_refused,
        an_account_sees_nothing_of_another_one,
        who_has_no_key_or_no_certificate_is_refused_and_told_so,
        a_coordinator_that_may_not_fill_the_queue_fails_its_tasks_and_says_why,
        who_may_not_read_a_stream_is_told_so,
        an_agent_that_may_not_make_the_streams_says_so,
    ]
}

/// The keys of the document.
const COORDINATOR: &str = "SUAO2XMQMYVUHRYHBB3CZSDJUE2TU6NQXHJLETDHOVCJZXZSWFT27GFERU";
const AGENT: &str = "SUAPKL4MP3WTWP2TA7AXXG6DDEIPF63PV2NDR7A6DE4ZZ4AQZTOAH6A4LA";
const REPORTS_COORDINATOR: &str = "SUAAB2TNKYBODIJZ5ONMUO6ZBSD7MUTONSFTMIWDY6MNHCGHJ3FH7SXIWA";
const BUILD: &str = "flags-7";

fn secured() -> ConfiguredServer {
    ConfiguredServer::start(documented("# secured.conf"), free_port(), &[])
}

fn coordinator(server: &ConfiguredServer, seed: &str) -> ClusterBuilder {
    let settings = with_tls(&server.url()).nkey(server.seed_file(seed));
    Cluster::builder(settings.inbox_prefix("_INBOX_coordinators")).build_id(BUILD)
}

fn cluster(server: &ConfiguredServer) -> Cluster {
    coordinator(server, COORDINATOR).build().expect("a cluster")
}

/// An agent in a process of its own.
struct SecuredAgent(Child);

impl SecuredAgent {
    fn start(server: &ConfiguredServer, host: &str) -> Self {
        let seed = server.seed_file(AGENT);
        let logs = server.path("logs");
        let (seed, logs) = (seed.display(), logs.display());
        Self(place::role(&format!("secured-agent {} {seed} {host} {logs}", server.url())))
    }
}

impl Drop for SecuredAgent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn play_if_asked() {
    let Some(arguments) = place::asked() else { return };
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let ["secured-agent", url, seed, host, logs] = arguments[..] else { return };
    end_with_input();
    let pool = ProcessPool::builder().workers(2).build().expect("a pool");
    let agent = Agent::builder(agent_settings(url, Path::new(seed)), Registry::collected())
        .host_name(host)
        .build_id(BUILD)
        .lease(Duration::from_secs(1))
        .logs(logs)
        .start(pool)
        .expect("an agent");
    agent.drain_on_signals();
    agent.wait().expect("an end");
    std::process::exit(0);
}

fn agent_settings(url: &str, seed: &Path) -> ConnectSettings {
    with_tls(url).nkey(seed).inbox_prefix("_INBOX_agents")
}

fn with_the_documented_permissions_agents_and_coordinators_do_all_that_they_do() {
    let server = secured();
    let (gate, file) = (Gate::new(), server.path("notes"));
    let cluster = coordinator(&server, COORDINATOR).attempts(2).map_chunks(8).build();
    let cluster = cluster.expect("a cluster");
    let doomed = SecuredAgent::start(&server, "doomed");
    // Large tasks and results, which go through the bucket, both ways.
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_be_bytes()[2]).collect();
    let reversed = cluster.submit(reverse(Blob::from(bytes.clone()))).result().expect("a blob");
    assert!(reversed.iter().rev().eq(bytes.iter()));
    // A task that runs is ended, and the worker is free again.
    let hung = cluster.submit(hang(server.path("hung")));
    eventually("a run", || notes(&server.path("hung")).len() == 1);
    assert!(hung.cancel());
    assert_eq!(hung.result(), Err(TaskError::Cancelled));
    // A host is lost, and its task begins again elsewhere.
    let again = cluster.submit(gated(file.clone(), gate.path(), 5));
    gate.await_arrivals(1);
    drop(doomed);
    let mut other = SecuredAgent::start(&server, "other");
    gate.await_arrivals(2);
    gate.open();
    assert_eq!(again.result(), Ok(5));
    assert_eq!(cluster.stats().retried, 1);
    // Errors, chunks, many tasks.
    assert_eq!(cluster.submit(half(7)).result().expect_err("odd").to_string(), "7 is odd");
    assert!(cluster.map((0..200).map(square)).eq((0..200).map(|n| Ok(n * n))));
    let many = as_completed((0..100).map(|n| cluster.submit(noted(file.clone(), n + 10, 1))));
    assert_eq!(many.filter_map(|future| future.result().ok()).count(), 100);
    assert_eq!(notes(&file)[2..], (10..110).collect::<Vec<_>>());
    let settings = with_tls(&server.url())
        .nkey(server.seed_file(COORDINATOR))
        .inbox_prefix("_INBOX_coordinators");
    let seen = procession_nats::overview(&settings).expect("an overview");
    assert_eq!(seen.hosts.last().expect("a host").host, "other");
    // Its log files.
    std::fs::create_dir(server.path("logs")).expect("a directory");
    std::fs::write(server.path("logs/worker-0.jsonl"), "a line").expect("a file");
    let fetched = procession_nats::fetch_logs(&settings, Duration::from_secs(10));
    let logs = fetched.expect("answers").pop().expect("an answer").logs.expect("logs");
    assert_eq!(logs.files, [("worker-0.jsonl".to_owned(), "a line".into())]);
    crate::harness::signal(other.0.id(), rustix::process::Signal::TERM);
    eventually("the end of the agent", || other.0.try_wait().expect("a child").is_some());
    eventually("its lease to be gone", || cluster.hosts().iter().all(|it| it.host != "other"));
    cluster.shutdown(Shutdown::Wait);
}

/// A client as an agent that was taken over may have it, and what the server denies it.
fn intruder(server: &ConfiguredServer, seed: &str, inbox: &str) -> (Client, Receiver<String>) {
    let (told, tells) = channel();
    let told = Arc::new(Mutex::new(told));
    let options = ConnectOptions::new()
        .nkey(seed.to_owned())
        .add_root_certificates(tls("ca.pem"))
        .add_client_certificate(tls("client.pem"), tls("client.key"))
        .require_tls(true)
        .custom_inbox_prefix(inbox)
        .event_callback(move |event| {
            if let Event::ServerError(ServerError::Other(text)) = event {
                drop(told.lock().expect("a sender").send(text));
            }
            async {}
        });
    let client = runtime().block_on(options.connect(server.url())).expect("a connection");
    (client, tells)
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().expect("a runtime"))
}

/// Each denial names its subject.
#[track_caller]
fn assert_denied(tells: &Receiver<String>, what: &str) {
    let told = tells.recv_timeout(Duration::from_secs(20)).expect("a denial");
    let names = told.to_lowercase().contains("permissions violation") && told.contains(what);
    assert!(names, "{what}: {told}");
}

fn what_is_not_an_agents_is_refused() {
    let server = secured();
    let cluster = cluster(&server);
    let queued = cluster.submit(square(3));
    let (client, tells) = intruder(&server, AGENT, "_INBOX_agents");
    let _entered = runtime().enter();
    let publications = [
        // Tasks, of this and of another build; records where there are none.
        "procession.t.flags-7.normal.job.1",
        "procession.t.another.normal.job.1",
        "another.r.job.1",
        "procession.u.job.1",
        "procession.c.instance",
        // Tasks of another build.
        "$JS.API.CONSUMER.MSG.NEXT.procession-tasks.another-high",
        "$JS.API.CONSUMER.CREATE.procession-tasks.another-low.procession.t.another.low.>",
        "$JS.API.CONSUMER.CREATE.procession-tasks.flags-7-low.procession.t.>",
        "$JS.API.CONSUMER.CREATE.procession-records.mine.procession.r.>",
        "$JS.API.DIRECT.GET.procession-tasks",
        "$JS.API.DIRECT.GET.KV_procession-hosts",
        "$JS.ACK.procession-tasks.another-high.1.1.1.1.1",
        // Deletions, and other settings.
        "$JS.API.STREAM.DELETE.procession-tasks",
        "$JS.API.STREAM.PURGE.procession-records",
        "$JS.API.STREAM.PURGE.OBJ_procession-bodies",
        "$JS.API.STREAM.UPDATE.procession-tasks",
        "$JS.API.STREAM.CREATE.mine",
        "$JS.API.STREAM.MSG.DELETE.procession-records",
        "$JS.API.CONSUMER.DELETE.procession-tasks.flags-7-high",
        "$JS.API.STREAM.NAMES",
        // Inboxes of others.
        "_INBOX_coordinators.x.1",
    ];
    for subject in publications {
        runtime().block_on(async {
            client.publish(subject, "{}".into()).await.expect("a connection");
            client.flush().await.expect("a connection");
        });
        assert_denied(&tells, subject);
    }
    let heard =
        ["_INBOX_coordinators.>", "_INBOX.>", "procession.u.>", "procession.t.>", ">", "$KV.>"];
    for subject in heard {
        let _subscriber = runtime().block_on(client.subscribe(subject)).expect("a connection");
        runtime().block_on(client.flush()).expect("a connection");
        assert_denied(&tells, subject);
    }
    let _agent = SecuredAgent::start(&server, "one");
    assert_eq!(queued.result(), Ok(9), "nothing has happened to it");
}

fn an_account_sees_nothing_of_another_one() {
    let server = secured();
    let flags = cluster(&server);
    let _agent = SecuredAgent::start(&server, "one");
    assert_eq!(flags.submit(square(3)).result(), Ok(9));
    let reports = coordinator(&server, REPORTS_COORDINATOR).build().expect("a cluster");
    let waits = reports.submit(square(4));
    eventually("no host for it", || reports.stats().without_host.is_some());
    assert!(reports.hosts().is_empty());
    assert_eq!(flags.submit(square(5)).result(), Ok(25));
    assert!(!waits.is_done());
}

fn who_has_no_key_or_no_certificate_is_refused_and_told_so() {
    let server = secured();
    let url = server.url();
    let seed = server.seed_file(AGENT);
    let foreign = server.seed_file(&nkeys::KeyPair::new_user().seed().expect("a seed"));
    let no_certificate = ConnectSettings::new(&url).root_certificate(tls("ca.pem")).nkey(&seed);
    for (settings, why) in [
        (with_tls(&url), "authorization"),
        (with_tls(&url).nkey(foreign), "authorization"),
        (no_certificate, "cannot connect"),
        // The system knows nothing of this authority.
        (ConnectSettings::new(&url).nkey(&seed), "cannot connect"),
        (with_tls(&url).nkey("/no/such.nk"), "/no/such.nk: No such file"),
        (with_tls(&url).nkey(tls("ca.pem")), "ca.pem"),
        (with_tls(&url).credentials(&seed), seed.to_str().expect("a path")),
        (ConnectSettings::new(&url).root_certificate("/no/ca.pem"), "/no/ca.pem: No such file"),
        (ConnectSettings::new(&url).inbox_prefix("a b"), "inbox prefix"),
    ] {
        let shown = format!("{settings:?}");
        let error = Cluster::builder(settings).build().expect_err("a refusal");
        let PoolError::Broker(told) = &error else { panic!("{error}") };
        assert!(told.contains(why), "{shown}: {told}");
    }
}

fn a_coordinator_that_may_not_fill_the_queue_fails_its_tasks_and_says_why() {
    let server = secured();
    drop(cluster(&server));
    let settings = agent_settings(&server.url(), &server.seed_file(AGENT));
    let cluster = Cluster::builder(settings).build_id(BUILD).build().expect("it may look");
    let error = cluster.submit(square(1)).result().expect_err("it may not submit");
    let TaskError::PoolBroken(PoolError::Broker(told)) = error else { panic!("{error}") };
    assert!(told.contains("may not publish to procession.t.flags-7."), "{told}");
}

fn who_may_not_read_a_stream_is_told_so() {
    let server = secured();
    drop(cluster(&server));
    let settings = agent_settings(&server.url(), &server.seed_file(AGENT));
    let told = procession_nats::overview(&settings).expect_err("not for agents").to_string();
    let subject = "$JS.API.DIRECT.GET.KV_procession-hosts";
    assert!(told.contains(&format!("may not publish to {subject}")), "{told}");
}

fn an_agent_that_may_not_make_the_streams_says_so() {
    let server = secured();
    let pool = ProcessPool::builder().workers(1).build().expect("a pool");
    let settings = agent_settings(&server.url(), &server.seed_file(AGENT));
    let started = Agent::builder(settings, Registry::collected()).build_id(BUILD).start(pool);
    let Err(PoolError::Broker(told)) = started else { panic!("there are no streams") };
    let subject = "$JS.API.STREAM.CREATE.procession-tasks";
    assert!(told.contains("do not allow") && told.contains(subject), "{told}");
}
