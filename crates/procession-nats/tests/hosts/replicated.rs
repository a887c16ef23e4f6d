//! Three servers with the configuration of docs/hosts.md, one of which is lost.

use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Executor, ProcessPool, Registry};
use procession_nats::{Agent, Cluster, ConnectSettings};

use crate::configured::{ConfiguredServer, documented, free_port};
use crate::harness::eventually;
use crate::tasks::{noted, notes};

pub(crate) fn trials() -> Vec<Trial> {
    trials![of_three_servers_one_may_be_killed_in_mid_run]
}

fn servers() -> Vec<ConfiguredServer> {
    let config = documented("# cluster.conf");
    let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
    let routes: Vec<_> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let start = |(n, route): (usize, &String)| {
        let more = ["-n", &format!("nats-{n}"), "--cluster", route, "--routes", &routes.join(",")];
        ConfiguredServer::start(config, free_port(), &more)
    };
    routes.iter().enumerate().map(start).collect()
}

fn of_three_servers_one_may_be_killed_in_mid_run() {
    const TASKS: u64 = 300;
    let mut servers = servers();
    let url = servers.iter().map(ConfiguredServer::url).collect::<Vec<_>>().join(",");
    let settings = || ConnectSettings::new(&url).replicas(3);
    let mut made = None;
    eventually("servers that have elected one of them", || {
        made = Cluster::builder(settings()).build().ok();
        made.is_some()
    });
    let cluster = made.expect("a cluster");
    let agent = |host: &str| {
        let pool = ProcessPool::builder().workers(1).build().expect("a pool");
        let builder = Agent::builder(settings(), Registry::collected()).host_name(host);
        builder.lease(Duration::from_secs(30)).start(pool).expect("an agent")
    };
    let _agents = [agent("one"), agent("two")];
    let file = servers[0].path("notes");
    let futures: Vec<_> = (0..TASKS).map(|n| cluster.submit(noted(file.clone(), n, 5))).collect();
    eventually("some tasks", || notes(&file).len() > 30);
    // The one that leads most likely: all have connected to it first, or to another.
    servers.remove(1);
    for (n, future) in (0..).zip(futures) {
        assert_eq!(future.result(), Ok(n));
    }
    assert_eq!(notes(&file), (0..TASKS).collect::<Vec<_>>(), "none lost, none twice");
}
