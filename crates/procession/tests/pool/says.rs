//! `on_say` of every executor gets the lines that tasks report by `Context::say`, in order and before the
//! results of the tasks.

use std::process::{self, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::{env, iter};

use libtest_mimic::Trial;
use procession::{
    Context, Engine, Executor, Failure, Registry, Said, Sequential, Shutdown, Task, TaskError,
    TaskId, ThreadPool,
};
use serde::{Deserialize, Serialize};

use crate::harness::ON_PURPOSE;
use crate::program;
use crate::tasks;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        lines_are_heard_in_order_and_before_the_result,
        long_lines_and_strange_ones_arrive_as_they_were_said,
        a_line_that_is_too_long_is_cut,
        what_a_task_said_before_it_died_was_heard,
        an_initializer_may_speak,
        a_listener_that_panics_harms_nobody,
        whoever_waits_for_a_task_hears_it_and_gets_its_result,
        a_listener_may_shut_the_pool_down,
        without_a_listener_lines_go_to_standard_output,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Tell>()
}

/// Says these lines; gives its worker and its process. May die afterwards.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tell {
    lines: Vec<String>,
    then_dies: bool,
}

impl Task for Tell {
    const NAME: &'static str = "Tell";
    type Output = (usize, u32);
    fn run(self, context: &Context) -> Result<(usize, u32), Failure> {
        for line in &self.lines {
            context.say(line);
        }
        if self.then_dies {
            process::abort();
        }
        Ok((context.worker(), process::id()))
    }
}

pub(crate) fn tell(lines: impl IntoIterator<Item = impl Into<String>>) -> Tell {
    Tell { lines: lines.into_iter().map(Into::into).collect(), then_dies: false }
}

/// What is heard of a task: its lines, and its result.
#[derive(Debug, PartialEq)]
enum Heard {
    Line { task: TaskId, worker: usize, pid: u32, line: String },
    Result(TaskId, Result<(usize, u32), TaskError>),
}

fn listener(to: Sender<Heard>) -> impl Fn(&Said<'_>) + Send + Sync + 'static {
    let to = Mutex::new(to);
    move |&Said { task, worker, pid, line, .. }| {
        let line = Heard::Line { task, worker, pid, line: line.to_owned() };
        to.lock().unwrap().send(line).unwrap();
    }
}

/// An executor, and what is heard of its tasks; with a sender for more.
type Audible = (&'static str, Box<dyn Engine>, Sender<Heard>, Receiver<Heard>);

/// One of each kind.
fn each_kind() -> Vec<Audible> {
    let with = |make: &dyn Fn(Sender<Heard>) -> Box<dyn Engine>, kind| {
        let (sender, heard) = mpsc::channel();
        (kind, make(sender.clone()), sender, heard)
    };
    vec![
        with(&|to| Box::new(Sequential::new().on_say(listener(to))), "sequential"),
        with(&|to| Box::new(ThreadPool::new(2).on_say(listener(to))), "threads"),
        with(
            &|to| {
                let pool = tasks::quiet().workers(2).on_say(listener(to));
                Box::new(pool.build().expect("a pool"))
            },
            "processes",
        ),
        with(
            &|to| {
                let pool = tasks::quiet().workers(2).concurrency(6).on_say(listener(to));
                Box::new(pool.build().expect("a pool"))
            },
            "processes with threads",
        ),
    ]
}

fn lines_are_heard_in_order_and_before_the_result() {
    for (kind, executor, sender, heard) in each_kind() {
        let lines = |n: usize| (0..n % 7).map(move |line| format!("{line} of {n}"));
        let mut tasks = Vec::new();
        for n in 0..50 {
            let future = executor.submit(tell(lines(n)));
            let (id, to) = (future.id(), sender.clone());
            future.on_done(move |result| to.send(Heard::Result(id, result.clone())).unwrap());
            tasks.push((n, id));
        }
        executor.shutdown(Shutdown::Wait);
        drop(sender);
        let mut of_all: Vec<_> = heard.try_iter().collect();
        for (n, id) in tasks {
            let of_it = of_all.extract_if(.., |heard| {
                let (Heard::Line { task, .. } | Heard::Result(task, _)) = heard;
                *task == id
            });
            let of_it: Vec<_> = of_it.collect();
            let Some(Heard::Result(_, Ok((worker, pid)))) = of_it.last() else {
                panic!("{kind}: {of_it:?}")
            };
            let as_said =
                lines(n).map(|line| Heard::Line { task: id, worker: *worker, pid: *pid, line });
            let result = Heard::Result(id, Ok((*worker, *pid)));
            assert_eq!(of_it, as_said.chain(iter::once(result)).collect::<Vec<_>>(), "{kind}");
        }
        assert_eq!(of_all, [], "{kind}");
    }
}

fn long_lines_and_strange_ones_arrive_as_they_were_said() {
    let lines =
        ["", "tab\t\"quote\" \\ \0 \u{1F1E7}\u{1F1F7}", "two\nlines\n", &"x".repeat(300_000)];
    for (kind, executor, sender, heard) in each_kind() {
        executor.submit(tell(lines)).result().expect("an output");
        drop((executor, sender));
        let said = heard.iter().map(|heard| match heard {
            Heard::Line { line, .. } => line,
            Heard::Result(..) => unreachable!("nobody asked for it"),
        });
        assert!(said.eq(lines), "{kind}");
    }
}

fn a_line_that_is_too_long_is_cut() {
    const MOST: usize = 16 << 20;
    let (sender, heard) = mpsc::channel();
    let pool = tasks::quiet().workers(1).on_say(listener(sender)).build().expect("a pool");
    for text in ["x", "\u{1F1E7}", "xxx\u{1F1E7}"] {
        let whole = text.repeat(2 * MOST / text.len());
        pool.submit(tell([&whole[..]])).result().expect("an output");
        let Ok(Heard::Line { line, .. }) = heard.try_recv() else { panic!("no line") };
        let end = format!(" ... (cut: the line has {} bytes)", whole.len());
        let part = line.strip_suffix(&end).expect("it says so");
        assert!(whole.starts_with(part), "{text:?}");
        assert!((MOST - 3..=MOST).contains(&part.len()), "{text:?}: {} bytes", part.len());
    }
}

fn what_a_task_said_before_it_died_was_heard() {
    let (sender, heard) = mpsc::channel();
    let pool = tasks::quiet().workers(1).on_say(listener(sender)).build().expect("a pool");
    let task = Tell { then_dies: true, ..tell(["I feel unwell"]) };
    let died = pool.submit(task).result();
    assert!(matches!(died, Err(TaskError::WorkerDied(_))), "{died:?}");
    let line = heard.try_recv().expect("a line");
    assert!(matches!(line, Heard::Line { line, .. } if line == "I feel unwell"));
    tasks::succeeds_with(&pool, 20);
}

fn an_initializer_may_speak() {
    let (sender, heard) = mpsc::channel();
    let pool = tasks::quiet().workers(1).initializer(tell(["good morning"]));
    let pool = pool.on_say(listener(sender)).build().expect("a pool");
    tasks::succeeds_with(&pool, 5);
    let said: Vec<_> = heard.try_iter().collect();
    assert!(
        matches!(&said[..], [Heard::Line { line, pid, .. }]
            if line == "good morning" && *pid == pool.pids()[0]),
        "{said:?}"
    );
}

fn a_listener_that_panics_harms_nobody() {
    let panics = |_: &Said<'_>| panic!("{ON_PURPOSE}");
    let executors: [Box<dyn Engine>; 3] = [
        Box::new(Sequential::new().on_say(panics)),
        Box::new(ThreadPool::new(2).on_say(panics)),
        Box::new(tasks::quiet().workers(2).on_say(panics).build().expect("a pool")),
    ];
    for executor in executors {
        let tasks = (0..20).map(|_| tell(["who hears this?"]));
        assert!(executor.map(tasks).all(|result| result.is_ok()));
    }
}

fn whoever_waits_for_a_task_hears_it_and_gets_its_result() {
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&heard);
    let listener = move |_: &Said<'_>| {
        counter.fetch_add(1, Ordering::SeqCst);
    };
    let pool = tasks::quiet().workers(1).on_say(listener).build().expect("a pool");
    for n in 1..=1000 {
        pool.submit(tell(["one", "two"])).result().expect("an output");
        assert_eq!(heard.load(Ordering::SeqCst), 2 * n);
    }
}

fn a_listener_may_shut_the_pool_down() {
    let pool = Arc::new(Mutex::new(None::<Arc<dyn Engine>>));
    let shared = Arc::clone(&pool);
    let listener = move |_: &Said<'_>| {
        if let Some(pool) = shared.lock().unwrap().take() {
            pool.shutdown(Shutdown::CancelPending);
        }
    };
    let built = tasks::quiet().workers(1).on_say(listener).build().expect("a pool");
    let built: Arc<dyn Engine> = Arc::new(built);
    *pool.lock().unwrap() = Some(Arc::clone(&built));
    built.submit(tell(["enough"])).result().expect("what runs is finished");
    built.shutdown(Shutdown::Wait);
    assert!(built.submit(tell(["too late"])).result().is_err());
}

const VARIABLE: &str = "PROCESSION_TEST_SAYS";

/// A program whose tasks say something, to nobody in particular.
pub(crate) fn play_if_asked() {
    if env::var_os(VARIABLE).is_none() {
        return;
    }
    let executors: [Box<dyn Engine>; 3] = [
        Box::new(Sequential::new()),
        Box::new(ThreadPool::new(1)),
        Box::new(tasks::quiet().workers(1).build().expect("a pool")),
    ];
    for executor in executors {
        executor.submit(tell(["one", "two"])).result().expect("an output");
    }
    process::exit(0);
}

fn without_a_listener_lines_go_to_standard_output() {
    let mut command = program::command("nothing else");
    let output = command.env(VARIABLE, "").output().expect("a program to run");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n".repeat(3));
    assert!(output.status.success(), "{output:?}");
    // Nobody reads it: that is no reason to fail.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = command.stdout(writer).stderr(Stdio::null()).status().expect("a program to run");
    assert!(status.success(), "{status}");
}
