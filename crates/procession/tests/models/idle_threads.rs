//! For each task that is added, a thread of the pool that has no task is woken, or comes already.

use std::sync::Arc;

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::{Condvar, Mutex, MutexGuard};
use shuttle::thread;

use super::explore;
use super::idle::IdleThreads;

/// The part of the queue of a pool on which wake-ups depend.
#[derive(Default)]
struct Queue {
    pending: usize,
    /// Parts of chunks. Threads take them before pending tasks or, with `pending_first`, after them.
    parts: usize,
    pending_first: bool,
    done: usize,
    idle: IdleThreads,
    is_shut_down: bool,
}

#[derive(Default)]
struct Pool {
    queue: Mutex<Queue>,
    added: AtomicUsize,
    changed: Condvar,
    has_done: Condvar,
}

type Guard<'p> = MutexGuard<'p, Queue>;

impl Pool {
    fn lock(&self) -> Guard<'_> {
        self.queue.lock().expect("no panic")
    }

    fn tell_spinning(&self, queue: &Queue) {
        if queue.idle.is_spinning {
            self.added.fetch_add(1, Ordering::Release);
        }
    }

    fn add(&self) {
        let mut queue = self.lock();
        queue.pending += 1;
        self.tell_spinning(&queue);
        let pending = queue.pending;
        let must_wake = queue.idle.must_wake_for(pending);
        drop(queue);
        if must_wake {
            self.changed.notify_one();
        }
    }

    fn call_for_help(&self) {
        let mut queue = self.lock();
        queue.parts += 1;
        self.tell_spinning(&queue);
        if queue.idle.must_wake_one_more() {
            self.changed.notify_one();
        }
    }

    /// After a thread has taken something.
    fn pass_on(&self, queue: &mut Queue) {
        let tasks = queue.pending + usize::from(queue.parts > 0);
        if queue.idle.must_wake_for(tasks) {
            self.changed.notify_one();
        }
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            let pending_first = queue.pending_first;
            let Queue { pending, parts, .. } = &mut *queue;
            let (first, second) = if pending_first { (pending, parts) } else { (parts, pending) };
            if *first > 0 {
                *first -= 1;
                self.pass_on(&mut queue);
                // This one ends only after another one.
                while queue.done == 0 {
                    queue = self.has_done.wait(queue).expect("no panic");
                }
            } else if *second > 0 {
                *second -= 1;
                self.pass_on(&mut queue);
                drop(queue);
                thread::yield_now();
                queue = self.lock();
                queue.done += 1;
                self.has_done.notify_all();
            } else if queue.is_shut_down {
                return;
            } else {
                queue = self.wait_for_tasks(queue);
            }
        }
    }

    fn shut_down(&self) {
        let mut queue = self.lock();
        queue.is_shut_down = true;
        self.tell_spinning(&queue);
        drop(queue);
        self.changed.notify_all();
    }

    fn sleep<'p>(&'p self, queue: Guard<'p>) -> Guard<'p> {
        let mut queue = self.changed.wait(queue).expect("no panic");
        queue.idle.is_back();
        queue
    }

    fn wait_for_tasks<'p>(&'p self, mut queue: Guard<'p>) -> Guard<'p> {
        queue.idle.number += 1;
        if queue.idle.is_spinning {
            queue = self.sleep(queue);
        } else {
            queue.idle.is_spinning = true;
            let added = self.added.load(Ordering::Acquire);
            drop(queue);
            let is_told = || self.added.load(Ordering::Acquire) != added;
            for _ in 0..2 {
                if is_told() {
                    break;
                }
                thread::yield_now();
            }
            queue = self.lock();
            queue.idle.is_spinning = false;
            if !is_told() {
                queue = self.sleep(queue);
            }
        }
        queue.idle.number -= 1;
        queue
    }
}

/// `tasks`: how many tasks each caller adds in each round. A round ends when all of its tasks are done.
fn all_tasks_are_run(threads: usize, callers: usize, tasks: &'static [usize]) {
    explore(move || {
        let pool = Arc::new(Pool::default());
        let spawn = |body: fn(&Pool)| {
            let pool = Arc::clone(&pool);
            thread::spawn(move || body(&pool))
        };
        let workers: Vec<_> = (0..threads).map(|_| spawn(Pool::work)).collect();
        let mut added = 0;
        for &number in tasks {
            let adding: Vec<_> = (0..callers * number).map(|_| spawn(Pool::add)).collect();
            adding.into_iter().for_each(|caller| caller.join().expect("no panic"));
            added += callers * number;
            // Only added tasks wake threads. If a task was forgotten, this is a deadlock.
            let mut queue = pool.lock();
            while queue.done < added {
                queue = pool.has_done.wait(queue).expect("no panic");
            }
        }
        pool.shut_down();
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
    });
}

#[test]
fn one_thread_runs_all_tasks() {
    all_tasks_are_run(1, 2, &[1, 2]);
}

#[test]
fn several_threads_run_all_tasks() {
    all_tasks_are_run(3, 2, &[1, 3, 2]);
}

/// Threads take two kinds of work, one kind first. Of that kind there is one piece less than there are threads, and
/// each piece ends only after one of the other kind: that must not wait for it.
fn no_task_waits_while_a_thread_is_idle(pending_first: bool, callers: [fn(&Pool); 3]) {
    explore(move || {
        let queue = Queue { pending_first, ..Queue::default() };
        let pool = Arc::new(Pool { queue: Mutex::new(queue), ..Pool::default() });
        let spawn = |body: fn(&Pool)| {
            let pool = Arc::clone(&pool);
            thread::spawn(move || body(&pool))
        };
        let workers: Vec<_> = (0..3).map(|_| spawn(Pool::work)).collect();
        callers.map(spawn).into_iter().for_each(|caller| caller.join().expect("no panic"));
        let mut queue = pool.lock();
        while queue.done == 0 {
            queue = pool.has_done.wait(queue).expect("no panic");
        }
        drop(queue);
        pool.shut_down();
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
    });
}

#[test]
fn a_pending_task_does_not_wait_behind_part_of_a_chunk_while_a_thread_is_idle() {
    let callers = [Pool::call_for_help, Pool::add, Pool::call_for_help];
    no_task_waits_while_a_thread_is_idle(false, callers);
}

#[test]
fn part_of_a_chunk_does_not_wait_behind_a_pending_task_while_a_thread_is_idle() {
    no_task_waits_while_a_thread_is_idle(true, [Pool::add, Pool::call_for_help, Pool::add]);
}

/// A pool in which each task needs a thread of its own, as tasks that wait for each other do.
#[test]
fn as_many_tasks_as_threads_are_run_at_a_time() {
    explore(|| {
        const THREADS: usize = 3;
        let pool = Arc::new(Pool::default());
        let (begun, all_have) = (Arc::new(Mutex::new(0)), Arc::new(Condvar::new()));
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (pool, begun) = (Arc::clone(&pool), Arc::clone(&begun));
                let all_have = Arc::clone(&all_have);
                thread::spawn(move || {
                    let mut queue = pool.lock();
                    while queue.pending == 0 {
                        queue = pool.wait_for_tasks(queue);
                    }
                    queue.pending -= 1;
                    drop(queue);
                    let mut begun = begun.lock().expect("no panic");
                    *begun += 1;
                    all_have.notify_all();
                    while *begun < THREADS {
                        begun = all_have.wait(begun).expect("no panic");
                    }
                })
            })
            .collect();
        (0..THREADS).for_each(|_| pool.add());
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
    });
}
