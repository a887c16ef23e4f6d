//! Tests: addresses, samples and metrics.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
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
    let (workers, spares, promoted) = (vec![worker], 1, 4);
    let (slots, pending, running) = (2, 3, 1);
    Gauges { slots, pending, running, done, workers, spares, promoted, ..Gauges::default() }
}

#[test]
fn samples_are_bounded_and_span_the_whole_time() {
    let mut history = GaugeHistory::default();
    let begin = Instant::now();
    for second in 0..10_000 {
        history.add(begin + Duration::from_secs(second), gauges(second));
        if second % 61 > 0 {
            continue;
        }
        let (first, newest, count) = samples(&history);
        assert!(count < 600, "{count} after {second} s");
        // At every moment, not only when a sample is due.
        assert!((newest - first - second as f64 * 1e3).abs() < 1.0, "{first} {newest} {second}");
    }
    let (_, _, count) = samples(&history);
    assert!((200..600).contains(&count), "{count}");
    // All at one moment: there is nothing to draw between them.
    let mut history = GaugeHistory::default();
    (0..10_000).for_each(|done| history.add(begin, gauges(done)));
    assert!(samples(&history).2 < 600);
    assert_eq!(history.now.done, 9_999);
}

/// The times of the first and the newest sample, in milliseconds, and the number of all.
fn samples(history: &GaugeHistory) -> (f64, f64, usize) {
    let picture = serde_json::to_value(history.picture().unwrap()).unwrap();
    let samples = picture["samples"].as_array().unwrap();
    let at = |index: usize| samples[index]["at"].as_f64().unwrap();
    (at(0), at(samples.len() - 1), samples.len())
}

#[test]
fn gauges_that_were_overtaken_are_not_the_present_ones() {
    let mut history = GaugeHistory::default();
    let begin = Instant::now();
    history.add(begin + Duration::from_secs(2), gauges(2));
    history.add(begin + Duration::from_secs(1), gauges(1));
    assert_eq!((history.now.done, history.number), (2, 1));
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
fn a_page_for_a_file_has_the_present_numbers_of_the_pool() {
    let done = Arc::new(AtomicU64::new(0));
    let sampled = Arc::clone(&done);
    let sample = move || gauges(sampled.load(Ordering::Relaxed));
    let local = "127.0.0.1:0".parse().unwrap();
    let dashboard = Dashboard::open_for_pool(local, "a program", sample).unwrap();
    done.store(9_876, Ordering::Relaxed);
    assert!(dashboard.still().unwrap().contains("\"done\":9876,"));
    dashboard.end();
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
        "procession_spares 1",
        "# TYPE procession_spare_promotions_total counter",
        "procession_spare_promotions_total 4",
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

#[test]
fn a_short_run_has_many_samples_and_a_long_one_a_sample_a_second() {
    let interval = |seconds| sample_interval(Duration::from_secs(seconds)).as_millis();
    assert_eq!([0, 2, 25, 50, 10_000].map(interval), [100, 100, 500, 1000, 1000]);
}
