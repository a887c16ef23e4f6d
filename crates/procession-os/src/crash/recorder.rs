//! The signal handler, where there is one.

#[path = "registers.rs"]
mod registers;

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::{Release, SeqCst};

use self::registers::Position;
use super::{
    CALL, FRAMES, FRAMES_AT, MAPS_AT, MAPS_LEN, MOST_FRAMES, PID, SIGNAL, SIZE, STATE, SharedMemory,
};

/// The signals of a process that went wrong by itself.
const SIGNALS: [c_int; 6] =
    [libc::SIGSEGV, libc::SIGABRT, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGSYS];

/// The longest walk of a stack, in seconds.
const LONGEST_WALK: u32 = 2;

struct Recorder {
    memory: &'static SharedMemory,
    at: usize,
    /// The actions that were set before, in the order of [`SIGNALS`].
    before: [libc::sigaction; SIGNALS.len()],
}

static RECORDER: OnceLock<Recorder> = OnceLock::new();
/// The process that records; a forked copy of it does not.
static RECORDING_PROCESS: AtomicI32 = AtomicI32::new(0);
/// The thread that records, or one of the numbers below.
static RECORDING_THREAD: AtomicI32 = AtomicI32::new(NOBODY);
const NOBODY: c_int = 0;
/// The record of this process was written.
const DONE: c_int = -1;
/// The signal that is recorded.
static FIRST_SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Records the first crash of this process in the memory, at this offset.
///
/// # Panics
///
/// If the memory ends before `at +` [`SIZE`](super::SIZE).
pub fn record_into(memory: &'static SharedMemory, at: usize) {
    assert_eq!(memory.bytes(at, SIZE).len(), SIZE);
    // SAFETY: the handler is async-signal-safe (see above) and finds its values in `RECORDER`, or does
    // nothing. The first walk of a stack initialises the unwinder, which may allocate: so one is
    // made here.
    unsafe {
        _Unwind_Backtrace(ignore, ptr::null_mut());
        let before = SIGNALS.map(|signal| {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed();
            libc::sigaction(signal, ptr::null(), action.as_mut_ptr());
            action.assume_init()
        });
        RECORDING_PROCESS.store(libc::getpid(), SeqCst);
        if RECORDER.set(Recorder { memory, at, before }).is_err() {
            return;
        }
        for signal in SIGNALS {
            let handler = record as *const () as libc::sighandler_t;
            set_handler(signal, handler, ptr::null_mut());
        }
    }
}

/// # Safety
///
/// The handler takes three arguments and is async-signal-safe. `before` is null or can be written to.
unsafe fn set_handler(signal: c_int, handler: libc::sighandler_t, before: *mut libc::sigaction) {
    // SAFETY: all zeros are an action; the rest is required above.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(signal, &action, before);
    }
}

/// Gives this thread a stack for signal handlers that is large enough for the walk, also when the
/// thread's own stack is used up. To be called by each thread that runs tasks. The stack is never
/// given back.
pub fn use_own_signal_stack() {
    const STACK: usize = 64 * 1024;
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory that is never unmapped. Without memory the thread keeps the stack for signals
    // that it has from the standard library.
    unsafe {
        let stack = libc::mmap(ptr::null_mut(), STACK, access, flags, -1, 0);
        if stack != libc::MAP_FAILED {
            let stack = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: STACK };
            libc::sigaltstack(&stack, ptr::null_mut());
        }
    }
}

extern "C" fn record(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(recorder) = RECORDER.get() else { return };
    // SAFETY: these calls are async-signal-safe. `info` and `context` are the kernel's, for this handler.
    unsafe {
        if libc::getpid() == RECORDING_PROCESS.load(SeqCst) {
            let this = libc::gettid();
            match RECORDING_THREAD.compare_exchange(NOBODY, this, SeqCst, SeqCst) {
                Ok(_) => {
                    FIRST_SIGNAL.store(signal, SeqCst);
                    recorder.write(signal, info, context.cast());
                    RECORDING_THREAD.store(DONE, SeqCst);
                }
                // The walk crashed.
                Err(other) if other == this => die_of(FIRST_SIGNAL.load(SeqCst)),
                Err(_) => await_other_thread(),
            }
        }
        let index = SIGNALS.iter().position(|known| *known == signal).unwrap_or(0);
        libc::sigaction(signal, &recorder.before[index], ptr::null_mut());
        let was_sent = (*info).si_code <= 0;
        // After a refused call, the program would go on.
        if was_sent || signal == libc::SIGSYS {
            // It does not come again by itself when this handler returns.
            libc::raise(signal);
        }
    }
}

/// The walk takes too long.
extern "C" fn give_up(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: these calls are async-signal-safe.
    unsafe {
        let is_recording = RECORDING_THREAD.load(SeqCst) > NOBODY;
        if is_recording && libc::getpid() == RECORDING_PROCESS.load(SeqCst) {
            die_of(FIRST_SIGNAL.load(SeqCst));
        }
    }
}

/// Another thread has crashed first. It ends the process when its crash is recorded: if this thread did so
/// now, the record would be cut short, and of another signal.
unsafe fn await_other_thread() {
    const MILLISECONDS: u32 = LONGEST_WALK * 1000 + 500;
    for _ in 0..MILLISECONDS {
        if RECORDING_THREAD.load(SeqCst) == DONE {
            return;
        }
        // SAFETY: waits for a millisecond, and for no descriptor.
        unsafe { libc::poll(ptr::null_mut(), 0, 1) };
    }
}

/// Ends the process as this signal does without a handler.
unsafe fn die_of(signal: c_int) -> ! {
    // SAFETY: these calls are async-signal-safe.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        change_mask(libc::SIG_UNBLOCK, signal);
        libc::raise(signal);
        libc::_exit(128 + signal)
    }
}

/// Blocks or unblocks one signal in this thread.
unsafe fn change_mask(how: c_int, signal: c_int) {
    let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` makes the set complete.
    unsafe {
        libc::sigemptyset(mask.as_mut_ptr());
        libc::sigaddset(mask.as_mut_ptr(), signal);
        libc::pthread_sigmask(how, mask.as_ptr(), ptr::null_mut());
    }
}

/// The number of the system call that a filter refused.
///
/// # Safety
///
/// `info` is the kernel's, for this signal.
unsafe fn refused_call(signal: c_int, info: *const libc::siginfo_t) -> Option<u32> {
    /// The signal comes from a filter.
    const SYS_SECCOMP: c_int = 1;
    /// Of the number, behind the address of the call.
    const OFFSET: usize = if cfg!(target_pointer_width = "64") { 24 } else { 16 };
    // SAFETY: within the structure, and aligned.
    unsafe {
        let is_refused = signal == libc::SIGSYS && (*info).si_code == SYS_SECCOMP;
        is_refused.then(|| info.byte_add(OFFSET).cast::<u32>().read())
    }
}

impl Recorder {
    fn put(&self, offset: usize, number: u32) {
        self.memory.word32(self.at + offset).store(number, Release);
    }

    /// Writes the record. The state comes first: if the walk itself crashes, the reader has a part.
    ///
    /// # Safety
    ///
    /// `info` and `context` are the kernel's, for this signal.
    unsafe fn write(
        &self,
        signal: c_int,
        info: *const libc::siginfo_t,
        context: *mut libc::ucontext_t,
    ) {
        self.put(SIGNAL, signal.cast_unsigned());
        // SAFETY: these calls are async-signal-safe.
        unsafe {
            if let Some(call) = refused_call(signal, info) {
                self.put(CALL, call.saturating_add(1));
            }
            self.put(PID, libc::getpid().cast_unsigned());
            self.put(STATE, 1);
            let mut before = MaybeUninit::zeroed();
            let handler = give_up as *const () as libc::sighandler_t;
            set_handler(libc::SIGALRM, handler, before.as_mut_ptr());
            change_mask(libc::SIG_UNBLOCK, libc::SIGALRM);
            libc::alarm(LONGEST_WALK);
            self.copy_maps();
            let interrupted = Position::of(context);
            if skip_null_call(context) {
                let mut walk = Walk { recorder: self, frames: None };
                _Unwind_Backtrace(add, ptr::from_mut(&mut walk).cast());
            }
            interrupted.put_into(context);
            libc::alarm(0);
            libc::sigaction(libc::SIGALRM, before.as_ptr(), ptr::null_mut());
        }
    }

    /// Copies the lines of `/proc/self/maps` that are of code.
    unsafe fn copy_maps(&self) {
        let mut written = 0;
        let copy = |line: &[u8]| {
            if MAPS_AT + written + line.len() <= SIZE {
                let at = self.at + MAPS_AT + written;
                self.memory.bytes(at, line.len()).copy_from(line);
                written += line.len();
            }
            false
        };
        // SAFETY: in the one thread that records.
        unsafe { any_code_line(copy) };
        self.put(MAPS_LEN, u32::try_from(written).unwrap_or(0));
    }
}

/// If the thread was interrupted at an address without code, it called a function by a pointer that is null
/// or wrong. Has the walk begin within the instruction of that call. Returns false if it is not found: the
/// unwinder would read what is at the address.
unsafe fn skip_null_call(context: *mut libc::ucontext_t) -> bool {
    // SAFETY: the context is the kernel's. The caller's place may be read where there is no memory: that ends
    // the process by the first signal.
    unsafe {
        let place = Position::of(context);
        if is_code_at(place.pc) != Some(false) {
            return true;
        }
        let caller = place.caller(context);
        let is_call = is_code_at(caller.pc) == Some(true);
        if is_call {
            caller.put_into(context);
        }
        is_call
    }
}

/// Whether there is code at this address; `None` if that cannot be known.
unsafe fn is_code_at(address: usize) -> Option<bool> {
    let mut has_any = false;
    let is_here = |line: &[u8]| {
        has_any = true;
        range(line).is_some_and(|(start, end)| (start..end).contains(&address))
    };
    // SAFETY: in the one thread that records.
    let is_code = unsafe { any_code_line(is_here) };
    has_any.then_some(is_code)
}

/// Calls the function with each line of `/proc/self/maps` that is of code, until it returns true. Returns
/// whether it did.
///
/// # Safety
///
/// Only the thread that records calls it, and not within the function.
unsafe fn any_code_line(mut found: impl FnMut(&[u8]) -> bool) -> bool {
    // SAFETY: the buffers have no other user. `read` fills at most the length of `part`.
    unsafe {
        let Buffers { line, part } = &mut *BUFFERS.0.get();
        let maps = libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let (mut len, mut is_found) = (0, false);
        while !is_found {
            let got = libc::read(maps, part.as_mut_ptr().cast(), part.len());
            let Ok(got @ 1..) = usize::try_from(got) else { break };
            for byte in &part[..got] {
                if len < line.len() {
                    line[len] = *byte;
                    len += 1;
                }
                if *byte == b'\n' {
                    is_found = is_found || is_code(&line[..len]) && found(&line[..len]);
                    len = 0;
                }
            }
        }
        libc::close(maps);
        is_found
    }
}

/// Not on the stack: that of a signal handler has about 8 KiB in the threads of tasks.
struct Buffers {
    line: [u8; 1024],
    part: [u8; 4096],
}

struct HandlerBuffers(UnsafeCell<Buffers>);

// SAFETY: only `any_code_line` uses it, in one thread.
unsafe impl Sync for HandlerBuffers {}

static BUFFERS: HandlerBuffers =
    HandlerBuffers(UnsafeCell::new(Buffers { line: [0; 1024], part: [0; 4096] }));

/// Whether a line of `/proc/self/maps`, `start-end rwxp …`, is whole and has the right to execute.
fn is_code(line: &[u8]) -> bool {
    let space = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    line.get(space + 3) == Some(&b'x') && line.last() == Some(&b'\n')
}

/// The addresses of a line.
fn range(line: &[u8]) -> Option<(usize, usize)> {
    let text = std::str::from_utf8(line.split(|byte| *byte == b' ').next()?).ok()?;
    let (start, end) = text.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

struct Walk<'r> {
    recorder: &'r Recorder,
    /// Their number, from the one on that was interrupted: those before it are of the handler.
    frames: Option<usize>,
}

/// Opaque: a frame of the unwinder.
#[repr(C)]
struct UnwindContext {
    _private: [u8; 0],
}

type UnwindCallback = extern "C" fn(*mut UnwindContext, *mut c_void) -> c_int;

const CONTINUE: c_int = 0;
const STOP: c_int = 5;

unsafe extern "C" {
    fn _Unwind_Backtrace(callback: UnwindCallback, argument: *mut c_void) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut UnwindContext, before: *mut c_int) -> usize;
}

extern "C" fn ignore(_: *mut UnwindContext, _: *mut c_void) -> c_int {
    CONTINUE
}

extern "C" fn add(context: *mut UnwindContext, walk: *mut c_void) -> c_int {
    // SAFETY: the unwinder passes on the pointer from `write`, and a context of its own.
    let (walk, address, was_interrupted) = unsafe {
        let mut is_before = 0;
        let address = _Unwind_GetIPInfo(context, &mut is_before);
        (&mut *walk.cast::<Walk<'_>>(), address, is_before != 0)
    };
    let Some(frames) = walk.frames.or(was_interrupted.then_some(0)) else { return CONTINUE };
    // A return address is that of the instruction after the call.
    let address = if was_interrupted { address } else { address.saturating_sub(1) };
    if frames == MOST_FRAMES || address == 0 {
        return STOP;
    }
    let recorder = walk.recorder;
    recorder.memory.word64(recorder.at + FRAMES_AT + 8 * frames).store(address as u64, Release);
    walk.frames = Some(frames + 1);
    recorder.put(FRAMES, u32::try_from(frames + 1).unwrap_or(0));
    CONTINUE
}

#[cfg(test)]
mod tests {
    use super::{is_code, range};

    #[test]
    fn a_mapping_of_code_is_known_by_its_rights() {
        let line = b"55d0-55d8 r-xp 00001000 fe:00 123 /usr/bin/cat\n";
        assert!(is_code(line));
        assert_eq!(range(line), Some((0x55d0, 0x55d8)));
        assert!(!is_code(b"55d0-55d8 rw-p 00001000 fe:00 123 /usr/bin/x\n"));
        assert!(!is_code(b"55d0-55d8 r-xp 00001000 fe:00 123 /a/path/that/was/cut"));
        assert!(!is_code(b"55d0-55d8"));
        assert_eq!(range(b"55d0"), None);
    }
}
