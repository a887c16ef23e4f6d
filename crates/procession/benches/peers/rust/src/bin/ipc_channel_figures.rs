//! One figure of plain ipc-channel, as JSON: two processes that answer JSON with JSON, no pool.

use std::env;
use std::process::{Child, Command};
use std::thread;
use std::time::Instant;

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};
use peers::{Asked, answer, keep_to_cpu, timed};
use serde::{Deserialize, Serialize};

/// Names the server at which a worker reports.
const SERVER: &str = "PEER_SERVER";

#[derive(Serialize, Deserialize)]
struct Call {
    id: u64,
    task: String,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    id: u64,
    data: String,
}

struct Worker {
    calls: IpcSender<String>,
    replies: IpcReceiver<String>,
    process: Child,
}

impl Worker {
    fn start() -> Self {
        let (server, name) = IpcOneShotServer::new().expect("a server");
        let program = env::current_exe().expect("this program");
        let process = Command::new(program).env(SERVER, name).spawn().expect("a process");
        let (_, (calls, replies)) = server.accept().expect("a worker that reports");
        Self { calls, replies, process }
    }

    fn send(&self, id: u64, task: &str) {
        let call = Call { id, task: task.to_owned() };
        self.calls
            .send(serde_json::to_string(&call).expect("JSON"))
            .expect("a worker that listens");
    }

    fn receive(&self) -> String {
        let reply: Reply =
            serde_json::from_str(&self.replies.recv().expect("an answer")).expect("JSON");
        reply.data
    }

    fn run(&self, task: &str) -> String {
        self.send(7, task);
        self.receive()
    }

    /// So many tasks, `window` of which are on their way at any time.
    fn run_all(&self, tasks: u64, window: u64) {
        (0..window.min(tasks)).for_each(|id| self.send(id, ""));
        for id in window..window.max(tasks) {
            self.receive();
            self.send(id, "");
        }
        (0..window.min(tasks)).for_each(|_| drop(self.receive()));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serve(server: String) {
    keep_to_cpu();
    let server = IpcSender::connect(server).expect("a coordinator");
    let (sender, calls) = ipc::channel::<String>().expect("a channel");
    let (replies, receiver) = ipc::channel::<String>().expect("a channel");
    server.send((sender, receiver)).expect("a coordinator that listens");
    while let Ok(call) = calls.recv() {
        let Call { id, task } = serde_json::from_str(&call).expect("JSON");
        let reply = serde_json::to_string(&Reply { id, data: task }).expect("JSON");
        replies.send(reply).expect("a coordinator that listens");
    }
}

fn main() {
    if let Ok(server) = env::var(SERVER) {
        return serve(server);
    }
    let asked = Asked::from_args();
    answer(match asked.measure.as_str() {
        "dispatch" => dispatch(&asked),
        "round_trip" => {
            let worker = Worker::start();
            asked.median(|| timed(|| drop(worker.run("")))) * 1e6
        }
        "start_up" => {
            let once = || {
                let begun = Instant::now();
                let workers = [Worker::start(), Worker::start()];
                workers[0].run("");
                begun.elapsed()
            };
            asked.median(once) * 1e3
        }
        "payload" => {
            let (worker, text) = (Worker::start(), "x".repeat(asked.count("mib", 64) << 20));
            let once = || timed(|| assert_eq!(worker.run(&text).len(), text.len()));
            asked.median(once) * 1e3
        }
        other => panic!("no such measure: {other:?}"),
    });
}

fn dispatch(asked: &Asked) -> f64 {
    let count = asked.count("workers", 2);
    let (batch, window) = (asked.count("batch", 10_000), asked.count("window", 16));
    let mut workers: Vec<_> = (0..count).map(|_| Worker::start()).collect();
    let share = (batch / count) as u64;
    let mut once = || {
        timed(|| {
            thread::scope(|scope| {
                // Mutable, since a receiver may be moved to a thread and not be shared with one.
                for worker in &mut workers {
                    scope.spawn(move || worker.run_all(share, window as u64));
                }
            });
        })
    };
    once();
    (share as usize * count) as f64 / asked.median(once)
}
