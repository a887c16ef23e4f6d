//! Atomics, memory, clock and sleep of the models.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::SeqCst as Plain;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(crate) use std::sync::atomic::Ordering;

use shuttle::current::{TaskId, me};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Condvar, Mutex as Blocking};

thread_local! {
    /// The state of the schedule. All its threads run on one thread of the system.
    static WORLD: RefCell<World> = RefCell::default();
}

#[derive(Default)]
struct World {
    /// The stores of each thread that the others do not see yet, in order.
    stores: Vec<(TaskId, VecDeque<Store>)>,
    /// Threads that die, and the number of their steps until then.
    mortals: Vec<(TaskId, usize)>,
    /// A sleep with a timeout ends by itself. Else it must be woken, so that a lost wake-up is
    /// found.
    has_timeouts: bool,
}

struct Store {
    /// It may become visible before earlier stores.
    is_relaxed: bool,
    what: What,
}

enum What {
    Word(Arc<Cell>, u64),
    Bytes(Arc<Mutex<Vec<u8>>>, usize, Vec<u8>),
}

impl What {
    fn carry_out(self) {
        match self {
            Self::Word(cell, value) => cell.value.store(value, Plain),
            Self::Bytes(memory, at, bytes) => {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                memory[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
    }

    fn is_at_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Word(one, _), Self::Word(other, _)) => Arc::ptr_eq(one, other),
            (Self::Bytes(one, ..), Self::Bytes(other, ..)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// Must be called at the start of a schedule.
pub(crate) fn begin() {
    WORLD.take();
}

/// Lets sleeps with a timeout end by themselves.
pub(crate) fn let_timeouts_pass() {
    WORLD.with_borrow_mut(|world| world.has_timeouts = true);
}

/// A step of a thread: another thread may run before it, and stores may become visible.
fn step(point: &shuttle::sync::atomic::AtomicBool) {
    let _ = point.load(Ordering::SeqCst);
    let dies = WORLD.with_borrow_mut(|world| {
        let mortal = world.mortals.iter_mut().find(|(task, _)| *task == me());
        mortal.is_some_and(|(_, left)| {
            *left = left.saturating_sub(1);
            *left == 0
        })
    });
    if dies {
        WORLD.with_borrow_mut(|world| world.mortals.retain(|(task, _)| *task != me()));
        resume_unwind(Box::new(Died));
    }
    while WORLD.with_borrow(|world| world.stores.iter().any(|(_, stores)| !stores.is_empty()))
        && thread_rng().gen_range(0..3) == 0
    {
        WORLD.with_borrow_mut(World::show_one);
    }
}

impl World {
    /// A random store becomes visible.
    fn show_one(&mut self) {
        let index = thread_rng().gen_range(0..self.stores.len());
        let (_, stores) = &mut self.stores[index];
        let may_go = |index: &usize| {
            let store = &stores[*index];
            let mut earlier = stores.iter().take(*index);
            *index == 0
                || store.is_relaxed && !earlier.any(|one| one.what.is_at_same_place(&store.what))
        };
        let candidates: Vec<_> = (0..stores.len()).filter(may_go).collect();
        if !candidates.is_empty() {
            let index = candidates[thread_rng().gen_range(0..candidates.len())];
            stores.remove(index).expect("it is there").what.carry_out();
        }
    }

    fn own(&mut self) -> &mut VecDeque<Store> {
        self.of(me())
    }

    fn of(&mut self, thread: TaskId) -> &mut VecDeque<Store> {
        let index = self.stores.iter().position(|(task, _)| *task == thread);
        let index = index.unwrap_or_else(|| {
            self.stores.push((thread, VecDeque::new()));
            self.stores.len() - 1
        });
        &mut self.stores[index].1
    }
}

/// All stores of this thread become visible.
fn show_all() {
    show_all_of(me());
}

fn show_all_of(thread: TaskId) {
    let stores = WORLD.with_borrow_mut(|world| std::mem::take(world.of(thread)));
    stores.into_iter().for_each(|store| store.what.carry_out());
}

fn store(what: What, is_relaxed: bool) {
    WORLD.with_borrow_mut(|world| world.own().push_back(Store { is_relaxed, what }));
}

/// A word of memory at which threads can sleep.
#[derive(Debug, Default)]
struct Cell {
    value: std::sync::atomic::AtomicU64,
    point: shuttle::sync::atomic::AtomicBool,
    sleepers: Blocking<()>,
    woken: Condvar,
}

impl Cell {
    fn load(self: &Arc<Self>) -> u64 {
        step(&self.point);
        // A thread sees its own stores at once.
        let own = WORLD.with_borrow_mut(|world| {
            world.own().iter().rev().find_map(|store| match &store.what {
                What::Word(cell, value) if Arc::ptr_eq(cell, self) => Some(*value),
                _ => None,
            })
        });
        own.unwrap_or_else(|| self.value.load(Plain))
    }

    fn store(self: &Arc<Self>, value: u64, order: Ordering) {
        step(&self.point);
        store(What::Word(Arc::clone(self), value), order == Ordering::Relaxed);
        if order == Ordering::SeqCst {
            show_all();
        }
    }

    fn update(self: &Arc<Self>, update: impl FnOnce(u64) -> Option<u64>) -> Result<u64, u64> {
        step(&self.point);
        show_all();
        let before = self.value.load(Plain);
        let after = update(before).ok_or(before)?;
        self.value.store(after, Plain);
        Ok(before)
    }
}

macro_rules! atomic {
    ($name:ident, $word:ty, $from:expr, $into:expr) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(Arc<Cell>);

        #[allow(dead_code, clippy::redundant_closure_call)]
        impl $name {
            pub(crate) fn new(value: $word) -> Self {
                let new = Self::default();
                new.0.value.store($from(value), Plain);
                new
            }

            pub(crate) fn load(&self, _: Ordering) -> $word {
                $into(self.0.load())
            }

            pub(crate) fn store(&self, value: $word, order: Ordering) {
                self.0.store($from(value), order);
            }

            pub(crate) fn swap(&self, value: $word, _: Ordering) -> $word {
                self.always(|_| value)
            }

            pub(crate) fn fetch_update(
                &self,
                _: Ordering,
                _: Ordering,
                mut update: impl FnMut($word) -> Option<$word>,
            ) -> Result<$word, $word> {
                let updated = self.0.update(|value| update($into(value)).map($from));
                updated.map($into).map_err($into)
            }

            fn always(&self, update: impl FnOnce($word) -> $word) -> $word {
                let updated = self.0.update(|value| Some($from(update($into(value)))));
                $into(updated.unwrap_or_else(|value| value))
            }
        }
    };
}

atomic!(AtomicBool, bool, u64::from, |value| value != 0);
atomic!(AtomicU32, u32, u64::from, |value| value as u32);
atomic!(AtomicU64, u64, |value| value, |value| value);

impl AtomicU32 {
    pub(crate) fn fetch_add(&self, number: u32, _: Ordering) -> u32 {
        self.always(|value| value.wrapping_add(number))
    }
}

impl AtomicU64 {
    pub(crate) fn fetch_max(&self, number: u64, _: Ordering) -> u64 {
        self.always(|value| value.max(number))
    }

    pub(crate) fn fetch_or(&self, bits: u64, _: Ordering) -> u64 {
        self.always(|value| value | bits)
    }

    pub(crate) fn fetch_sub(&self, number: u64, _: Ordering) -> u64 {
        self.always(|value| value.wrapping_sub(number))
    }
}

pub(crate) fn wake(word: &AtomicU32) {
    step(&word.0.point);
    let sleepers = word.0.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
    word.0.woken.notify_all();
    drop(sleepers);
}

pub(crate) fn sleep(word: &AtomicU32, as_seen: u32, timeout: Option<Duration>) {
    step(&word.0.point);
    // The system call is a barrier.
    show_all();
    let sleepers = word.0.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
    if word.0.value.load(Plain) as u32 != as_seen {
        return;
    }
    if timeout.is_some() && WORLD.with_borrow(|world| world.has_timeouts) {
        drop(sleepers);
        for _ in 0..thread_rng().gen_range(0..10) {
            shuttle::thread::yield_now();
        }
    } else {
        drop(word.0.woken.wait(sleepers));
    }
}

pub(crate) fn yield_now() {
    shuttle::thread::yield_now();
}

/// A time of a clock that advances at random.
pub(crate) struct Instant;

impl Instant {
    pub(crate) fn now() -> Self {
        Self
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_micros(thread_rng().gen_range(0..200))
    }
}

/// Memory that is read and written as bytes.
#[derive(Debug)]
pub(crate) struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    point: shuttle::sync::atomic::AtomicBool,
}

impl Memory {
    pub(crate) fn new(len: usize) -> Self {
        let bytes = Arc::new(Mutex::new(vec![0; len]));
        Self { bytes, point: shuttle::sync::atomic::AtomicBool::new(false) }
    }

    pub(crate) fn all(&self) -> Bytes<'_> {
        let len = self.bytes.lock().unwrap_or_else(PoisonError::into_inner).len();
        Bytes { memory: self, from: 0, len }
    }
}

#[derive(Debug)]
pub(crate) struct Bytes<'m> {
    memory: &'m Memory,
    from: usize,
    len: usize,
}

impl<'m> Bytes<'m> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn subslice(&self, at: usize, len: usize) -> Result<Bytes<'m>, String> {
        match at.checked_add(len).is_some_and(|end| end <= self.len) {
            true => Ok(Bytes { memory: self.memory, from: self.from + at, len }),
            false => Err(format!("{at} and {len} bytes of {}", self.len)),
        }
    }

    pub(crate) fn copy_from(&self, bytes: &[u8]) {
        step(&self.memory.point);
        let bytes = &bytes[..bytes.len().min(self.len)];
        if !bytes.is_empty() {
            store(What::Bytes(Arc::clone(&self.memory.bytes), self.from, bytes.to_vec()), true);
        }
    }

    pub(crate) fn copy_to(&self, bytes: &mut [u8]) {
        // In two halves. Other threads may write in between.
        let half = bytes.len() / 2;
        for part in [0..half, half..bytes.len().min(self.len)] {
            step(&self.memory.point);
            let memory = self.memory.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            bytes[part.clone()].copy_from_slice(&memory[self.from..][part]);
        }
    }
}

/// The panic of a thread that dies as planned.
struct Died;

/// A thread of the model.
pub(crate) struct Thread(shuttle::thread::JoinHandle<Result<(), Box<dyn Any + Send>>>);

pub(crate) fn spawn(run: impl FnOnce() + Send + 'static) -> Thread {
    Thread(shuttle::thread::spawn(move || {
        let ended = catch_unwind(AssertUnwindSafe(run));
        show_all();
        ended
    }))
}

/// A thread that ends after `steps` steps, wherever it is.
pub(crate) fn spawn_mortal(steps: usize, run: impl FnOnce() + Send + 'static) -> Thread {
    spawn(move || {
        WORLD.with_borrow_mut(|world| world.mortals.push((me(), steps.max(1))));
        run();
        WORLD.with_borrow_mut(|world| world.mortals.retain(|(task, _)| *task != me()));
    })
}

impl Thread {
    /// Waits for its end. Panics if the thread did, unless it died as planned.
    pub(crate) fn join(self) {
        let ended = self.0.join().unwrap_or_else(|panic| resume_unwind(panic));
        if let Err(panic) = ended
            && !panic.is::<Died>()
        {
            resume_unwind(panic);
        }
    }
}

/// A lock. The stores of its last owner are visible to the next, but not yet to others.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Blocking<(T, Option<TaskId>)>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Blocking::new((value, None)))
    }

    pub(crate) fn with<R>(&self, run: impl FnOnce(&mut T) -> R) -> R {
        let mut owned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, last) = &mut *owned;
        if let Some(last) = last.replace(me()) {
            show_all_of(last);
        }
        run(value)
    }
}

/// A random number below this one.
pub(crate) fn chance(below: u64) -> u64 {
    thread_rng().gen_range(0..below)
}
