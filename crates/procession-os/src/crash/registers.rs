//! The registers of an interrupted thread that a walk begins with, on each processor.

#[cfg(target_arch = "x86_64")]
use std::ffi::c_int;
#[cfg(target_arch = "x86_64")]
use std::ptr;

/// The program counter and the stack pointer of an interrupted thread.
pub(super) struct Position {
    pub(super) pc: usize,
    sp: usize,
}

#[cfg(target_arch = "x86_64")]
impl Position {
    pub(super) unsafe fn of(context: *const libc::ucontext_t) -> Self {
        // SAFETY: the context is the kernel's.
        let registers = unsafe { &(*context).uc_mcontext.gregs };
        let register = |index: c_int| registers[index as usize] as usize;
        Self { pc: register(libc::REG_RIP), sp: register(libc::REG_RSP) }
    }

    pub(super) unsafe fn put_into(&self, context: *mut libc::ucontext_t) {
        // SAFETY: the context is the kernel's.
        let registers = unsafe { &mut (*context).uc_mcontext.gregs };
        registers[libc::REG_RIP as usize] = self.pc as i64;
        registers[libc::REG_RSP as usize] = self.sp as i64;
    }

    /// The position of the call that has just been made to here: its return address is on the stack.
    pub(super) unsafe fn caller(&self, _: *const libc::ucontext_t) -> Self {
        // SAFETY: see `skip_null_call` in `recorder.rs`.
        let back = unsafe { ptr::with_exposed_provenance::<usize>(self.sp).read_unaligned() };
        Self { pc: back.wrapping_sub(1), sp: self.sp.wrapping_add(size_of::<usize>()) }
    }
}

#[cfg(target_arch = "aarch64")]
impl Position {
    pub(super) unsafe fn of(context: *const libc::ucontext_t) -> Self {
        // SAFETY: the context is the kernel's.
        let registers = unsafe { &(*context).uc_mcontext };
        Self { pc: registers.pc as usize, sp: registers.sp as usize }
    }

    pub(super) unsafe fn put_into(&self, context: *mut libc::ucontext_t) {
        // SAFETY: the context is the kernel's.
        let registers = unsafe { &mut (*context).uc_mcontext };
        (registers.pc, registers.sp) = (self.pc as u64, self.sp as u64);
    }

    /// The position of the call that has just been made to here: its return address is in the link register.
    pub(super) unsafe fn caller(&self, context: *const libc::ucontext_t) -> Self {
        const LINK: usize = 30;
        // SAFETY: the context is the kernel's.
        let back = unsafe { (&(*context).uc_mcontext.regs)[LINK] as usize };
        Self { pc: back.wrapping_sub(1), sp: self.sp }
    }
}
