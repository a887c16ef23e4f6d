//! Tests: addresses, samples and metrics.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::*;
use crate::gauges::GaugeHistory;

#[test]
fn the_url_of_the_page_leads_to_it() {
    let url_of = |addr: &str| url(addr.parse().unwrap());
    assert_eq!(url_of("127.0.0.1:80"), "http://localhost:80/");
    assert_eq!(url_of("0.0.0.0:80"), "http://localhost:80/");
    assert_eq!(url_of("127.0.0.2:80"), "http://127.0.0.2:80/");
    assert_eq!(url_of("[::1]:80"), "http://[::1]:80/");
}

fn gauges(done: u64) -> Gauges {
    let worker = WorkerGauge { pid: 7, memory: Some(4096), cpu_s: Some(0.25) };
    Gauges { slots: 2, pending: 3, running: 1, done, workers: vec![worker], ..Gauges::default() }
}

#[test]
fn samples_are_bounded_and_span_the_whole_time() {
    let mut history = GaugeHistory::default();
    for done in 0..10_000 {
        history.add(gauges(done));
    }
    let picture = serde_json::to_value(history.picture().unwrap()).unwrap();
    let samples = picture["samples"].as_array().unwrap();
    assert!((200..600).contains(&samples.len()), "{}", samples.len());
    assert_eq!(picture["now"]["done"], 9_999);
}

fn get(addr: SocketAddr, path: &str, host: &str) -> String {
    let mut server = TcpStream::connect(addr).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(server, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = server.read_to_string(&mut answer);
    answer
}

#[test]
fn a_pool_has_metrics_in_the_format_of_prometheus() {
    let local = "127.0.0.1:0".parse().unwrap();
    let dashboard = Dashboard::open_for_pool(local, "a program", || gauges(5)).unwrap();
    let metrics = get(dashboard.addr(), "/metrics", "localhost");
    assert!(metrics.starts_with("HTTP/1.0 200 OK"), "{metrics}");
    for line in [
        "# TYPE procession_tasks_total counter",
        "procession_tasks_total{outcome=\"done\"} 5",
        "procession_tasks_pending 3",
        "procession_worker_memory_bytes{pid=\"7\"} 4096",
        "procession_task_run_seconds_count 0",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line}: {metrics}");
    }
    assert!(get(dashboard.addr(), "/metrics", "example.org").starts_with("HTTP/1.0 403"));
    let page = get(dashboard.addr(), "/", "localhost");
    assert!(page.contains("\"pool\":{\"now\":{\"slots\":2,"), "{page}");
    dashboard.end();
    let without = Dashboard::open(local).unwrap();
    assert!(get(without.addr(), "/metrics", "localhost").starts_with("HTTP/1.0 404"));
}
