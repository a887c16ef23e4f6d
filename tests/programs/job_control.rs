//! A coordinator that is stopped with Ctrl-Z stops its workers, too, and no deadline counts that time.

#![cfg(target_os = "linux")]

use std::fs;
use std::thread;
use std::time::Duration;

use crate::hostile::{Behaviour, HostileServer};
use crate::programs::{ProgramDir, wait_until, wait_until_gone};
use rustix::process::Signal;

fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

#[test]
fn ctrl_z_stops_the_workers_with_the_program_and_costs_no_task() {
    let server = HostileServer::start(Behaviour::Stall);
    let place = ProgramDir::new();
    let url = server.base_url();
    let args = ["br", "cn", "-s", &url, "-w", "2", "--task-timeout", "8"];
    let run = place.start(&args);
    wait_until("requests in flight", || server.connections() >= 2);
    let workers = run.workers(2);

    run.signal(Signal::TSTP);
    wait_until("a stop of the program", || is_stopped(run.pid()));
    wait_until("a stop of the workers", || workers.iter().all(|&pid| is_stopped(pid)));
    // Longer than a task may run.
    thread::sleep(Duration::from_secs(9));

    run.signal(Signal::CONT);
    wait_until("work that goes on", || !workers.iter().any(|&pid| is_stopped(pid)));
    thread::sleep(Duration::from_millis(500));
    assert_eq!(run.workers(2), workers, "no deadline has ended a worker");
    run.signal(Signal::KILL);
    wait_until_gone(&workers);
}
