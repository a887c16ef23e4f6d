//! Where a process crashed: a signal handler writes the return addresses of the crashing thread, and the
//! files that its code is mapped from, into memory that another process reads after the crash.
//!
//! The handler does only what is allowed in a signal handler: it writes to that memory, walks the stack,
//! and reads `/proc/self/maps` by system calls. It allocates nothing and takes no lock. The walk is that
//! of libgcc, which the standard library links anyway; it may take a lock of the dynamic linker, so an
//! alarm bounds it. Then the signal goes on to the action that was set before, and so ends the process as
//! it would have without this handler.
//!
//! | offset | size | value |
//! |---|---|---|
//! | 0 | 4 | 0: nothing; 1: a record was begun; 2: it is complete |
//! | 4 | 4 | the signal |
//! | 8 | 4 | the process id |
//! | 12 | 4 | number of addresses |
//! | 16 | 4 | length of the mappings |
//! | 20 | 4 | the system call that a filter refused, plus 1 |
//! | 64 | 8 each | addresses, the innermost first |
//! | 1024 | | the lines of `/proc/self/maps` that are of code |
//!
//! The reader trusts nothing of that: it may come from a process that was taken over.

use crate::shared::SharedMemory;

/// The size of the memory for one record.
pub const SIZE: usize = 64 * 1024;

/// The most addresses of a record.
const MOST_FRAMES: usize = 100;

const STATE: usize = 0;
const SIGNAL: usize = 4;
const PID: usize = 8;
const FRAMES: usize = 12;
const MAPS_LEN: usize = 16;
const CALL: usize = 20;
const FRAMES_AT: usize = 64;
const MAPS_AT: usize = 1024;

/// What a crashed process has written. Its content is not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashRecord {
    /// The signal.
    pub signal: i32,
    /// The process that wrote it.
    pub pid: u32,
    /// Addresses of instructions, the innermost first. Those of calls are inside the calling instruction.
    pub addresses: Vec<u64>,
    /// Lines in the format of `/proc/PID/maps`.
    pub maps: Vec<u8>,
    /// The number of the system call that a filter refused, if that was the cause.
    pub refused_call: Option<u32>,
}

/// The record at this offset of the memory, if there is one. It may be incomplete.
///
/// # Panics
///
/// If the memory ends before `at +` [`SIZE`].
pub fn read(memory: &SharedMemory, at: usize) -> Option<CrashRecord> {
    use std::sync::atomic::Ordering::Acquire;
    let number = |offset: usize| memory.word32(at + offset).load(Acquire);
    if number(STATE) == 0 {
        return None;
    }
    let frames = (number(FRAMES) as usize).min(MOST_FRAMES);
    let address = |n: usize| memory.word64(at + FRAMES_AT + 8 * n).load(Acquire);
    let mut maps = vec![0; (number(MAPS_LEN) as usize).min(SIZE - MAPS_AT)];
    memory.bytes(at + MAPS_AT, maps.len()).copy_to(&mut maps);
    Some(CrashRecord {
        signal: number(SIGNAL).cast_signed(),
        pid: number(PID),
        addresses: (0..frames).map(address).collect(),
        maps,
        refused_call: number(CALL).checked_sub(1),
    })
}

pub use imp::{record_into, use_own_signal_stack};

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod imp {
    use std::cell::UnsafeCell;
    use std::ffi::{c_int, c_void};
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::OnceLock;
    use std::sync::atomic::Ordering::{Release, SeqCst};
    use std::sync::atomic::{AtomicBool, AtomicI32};

    use super::{
        CALL, FRAMES, FRAMES_AT, MAPS_AT, MAPS_LEN, MOST_FRAMES, PID, SIGNAL, SIZE, STATE,
        SharedMemory,
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
    static HAS_RECORDED: AtomicBool = AtomicBool::new(false);

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
                let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
                action.sa_sigaction = record as *const () as libc::sighandler_t;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigemptyset(&mut action.sa_mask);
                libc::sigaction(signal, &action, ptr::null_mut());
            }
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

    extern "C" fn record(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
        let Some(recorder) = RECORDER.get() else { return };
        // SAFETY: these calls are async-signal-safe. `info` is the kernel's, for this handler.
        unsafe {
            let is_recording = libc::getpid() == RECORDING_PROCESS.load(SeqCst);
            if is_recording && !HAS_RECORDED.swap(true, SeqCst) {
                if let Some(call) = refused_call(signal, info) {
                    recorder.put(CALL, call.saturating_add(1));
                }
                recorder.write(signal);
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
        unsafe fn write(&self, signal: c_int) {
            self.put(SIGNAL, signal.cast_unsigned());
            // SAFETY: these calls are async-signal-safe.
            unsafe {
                self.put(PID, libc::getpid().cast_unsigned());
                self.put(STATE, 1);
                self.copy_maps();
                libc::signal(libc::SIGALRM, libc::SIG_DFL);
                libc::alarm(LONGEST_WALK);
                let mut walk = Walk { recorder: self, frames: 0 };
                _Unwind_Backtrace(add, ptr::from_mut(&mut walk).cast());
                libc::alarm(0);
            }
            self.put(STATE, 2);
        }

        /// Copies the lines of `/proc/self/maps` that are of code.
        unsafe fn copy_maps(&self) {
            // SAFETY: this function runs once in a process, so the buffers have no other user. `read` fills at
            // most the length of `part`.
            unsafe {
                let Buffers { line, part } = &mut *BUFFERS.0.get();
                let (mut len, mut written) = (0, 0);
                let maps =
                    libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
                loop {
                    let got = libc::read(maps, part.as_mut_ptr().cast(), part.len());
                    let Ok(got @ 1..) = usize::try_from(got) else { break };
                    for byte in &part[..got] {
                        if len < line.len() {
                            line[len] = *byte;
                            len += 1;
                        }
                        if *byte == b'\n' {
                            if is_code(&line[..len]) && MAPS_AT + written + len <= SIZE {
                                let at = self.at + MAPS_AT + written;
                                self.memory.bytes(at, len).copy_from(&line[..len]);
                                written += len;
                            }
                            len = 0;
                        }
                    }
                }
                libc::close(maps);
                self.put(MAPS_LEN, u32::try_from(written).unwrap_or(0));
            }
        }
    }

    /// Not on the stack: that of a signal handler has about 8 KiB in the threads of tasks.
    struct Buffers {
        line: [u8; 1024],
        part: [u8; 4096],
    }

    struct HandlerBuffers(UnsafeCell<Buffers>);

    // SAFETY: only `copy_maps` uses it, which runs once.
    unsafe impl Sync for HandlerBuffers {}

    static BUFFERS: HandlerBuffers =
        HandlerBuffers(UnsafeCell::new(Buffers { line: [0; 1024], part: [0; 4096] }));

    /// Whether a line of `/proc/self/maps`, `start-end rwxp …`, has the right to execute.
    fn is_code(line: &[u8]) -> bool {
        let space = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        line.get(space + 3) == Some(&b'x')
    }

    struct Walk<'r> {
        recorder: &'r Recorder,
        frames: usize,
    }

    /// Opaque: a frame of the unwinder.
    #[repr(C)]
    struct UnwindContext {
        _private: [u8; 0],
    }

    type Callback = extern "C" fn(*mut UnwindContext, *mut c_void) -> c_int;

    const CONTINUE: c_int = 0;
    const STOP: c_int = 5;

    unsafe extern "C" {
        fn _Unwind_Backtrace(callback: Callback, argument: *mut c_void) -> c_int;
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
        if was_interrupted {
            // The frames so far are those of the handler.
            walk.frames = 0;
        }
        // A return address is that of the instruction after the call.
        let address = if was_interrupted { address } else { address.saturating_sub(1) };
        if walk.frames == MOST_FRAMES || address == 0 {
            return STOP;
        }
        let recorder = walk.recorder;
        let place = recorder.at + FRAMES_AT + 8 * walk.frames;
        recorder.memory.word64(place).store(address as u64, Release);
        walk.frames += 1;
        recorder.put(FRAMES, u32::try_from(walk.frames).unwrap_or(0));
        CONTINUE
    }

    #[cfg(test)]
    mod tests {
        use super::is_code;

        #[test]
        fn a_mapping_of_code_is_known_by_its_rights() {
            assert!(is_code(b"55d0-55d8 r-xp 00001000 fe:00 123 /usr/bin/cat\n"));
            assert!(!is_code(b"55d0-55d8 rw-p 00001000 fe:00 123 /usr/bin/x\n"));
            assert!(!is_code(b"55d0-55d8"));
        }
    }
}

#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
mod imp {
    use super::SharedMemory;

    /// Only on Linux: elsewhere a process cannot read its mappings in a signal handler.
    pub fn record_into(_: &'static SharedMemory, _: usize) {}

    /// Only on Linux.
    pub fn use_own_signal_stack() {}
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn a_record_that_promises_too_much_is_read_within_its_bounds() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(SIZE as u64 + 64).expect("a length");
        let memory = SharedMemory::map(&file, SIZE + 64).expect("mapped");
        assert_eq!(read(&memory, 64), None);
        for offset in [STATE, SIGNAL, PID, FRAMES, MAPS_LEN] {
            memory.word32(64 + offset).store(u32::MAX, Ordering::Release);
        }
        let record = read(&memory, 64).expect("a record");
        assert_eq!((record.signal, record.pid), (-1, u32::MAX));
        assert_eq!((record.addresses.len(), record.maps.len()), (MOST_FRAMES, SIZE - MAPS_AT));
    }
}
