//! Ways out of a sandbox that are a few system calls: a task makes them as they are listed here.
//!
//! The last call of an attempt is the one that does harm. It must be refused for lack of permission, or end the
//! worker: any other error would mean that the system has looked at it. Without a sandbox nearly all are open,
//! so the lists say what they mean.

#![allow(unsafe_code, reason = "a way out has no safe interface")]

/// A [`Step`].
macro_rules! step {
    ($number:expr $(, $arg:expr)*) => { Step($number, vec![$(IntoArg::into_arg($arg)),*]) };
}

mod files;
mod kernel;
mod processes;

use std::path::Path;

use libc::c_long;
use procession::{Context, Failure, Task};
use serde::{Deserialize, Serialize};

pub(super) use self::files::where_it_may_write;
pub(super) use self::kernel::of_strict;

/// An argument of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Arg {
    Number(i64),
    /// A pointer to these bytes, which the call may change.
    Bytes(Vec<u8>),
    /// What the call with this index has returned.
    Returned(usize),
    /// The first number in memory that the call with this index has filled: this argument of it.
    Filled(usize, usize),
}

/// One system call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step(i64, Vec<Arg>);

/// Makes the calls. The output is what the last one has returned, or the number of the first error, negative.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Try(pub Vec<Step>);

impl Task for Try {
    const NAME: &'static str = "try";
    type Output = i64;

    fn run(self, _: &Context) -> Result<i64, Failure> {
        let (mut returned, mut done): (Vec<i64>, Vec<Vec<Arg>>) = Default::default();
        for Step(number, mut args) in self.0 {
            let mut words = [0_i64; 6];
            for (word, arg) in words.iter_mut().zip(&mut args) {
                *word = match arg {
                    Arg::Number(number) => *number,
                    Arg::Bytes(bytes) => bytes.as_mut_ptr() as i64,
                    Arg::Returned(step) => returned[*step],
                    Arg::Filled(step, arg) => first_number(&done[*step][*arg]),
                };
            }
            let [a, b, c, d, e, f] = words;
            // SAFETY: the pointers lead to bytes that outlive the call; the lists give it as many as it uses.
            let result = unsafe { libc::syscall(number as c_long, a, b, c, d, e, f) };
            if result == -1 {
                let error = std::io::Error::last_os_error();
                return Ok(-i64::from(error.raw_os_error().unwrap_or(libc::EIO)));
            }
            if result == 0 && number == libc::SYS_clone {
                // SAFETY: ends the copy at once.
                unsafe { libc::_exit(0) };
            }
            returned.push(result);
            done.push(args);
        }
        Ok(returned.last().copied().unwrap_or_default())
    }
}

fn first_number(arg: &Arg) -> i64 {
    match arg {
        Arg::Bytes(bytes) => i32::from_le_bytes(bytes[..4].try_into().expect("four bytes")).into(),
        _ => -1,
    }
}

/// A name, the calls, and whether they succeed without a sandbox, whoever the user is and however the kernel
/// was built.
pub(super) struct Attempt {
    pub name: &'static str,
    pub steps: Vec<Step>,
    pub is_open_without: bool,
    /// It is refused as by a file system that does not have it.
    pub is_absent: bool,
}

/// What the attempts are made on.
pub(super) struct Targets<'t> {
    /// A file that the sandbox does not name.
    pub secret: &'t Path,
    /// A file that it allows to read.
    pub readable: &'t Path,
    /// A socket for datagrams, of another process.
    pub socket: &'t Path,
    /// A file that does not exist where named memory is.
    pub memory: &'t Path,
    /// A process of the same user.
    pub victim: u32,
}

trait IntoArg {
    fn into_arg(self) -> Arg;
}

impl IntoArg for i64 {
    fn into_arg(self) -> Arg {
        Arg::Number(self)
    }
}

impl IntoArg for i32 {
    fn into_arg(self) -> Arg {
        Arg::Number(self.into())
    }
}

impl IntoArg for u32 {
    fn into_arg(self) -> Arg {
        Arg::Number(self.into())
    }
}

impl IntoArg for &str {
    fn into_arg(self) -> Arg {
        Arg::Bytes([self.as_bytes(), &[0; 8]].concat())
    }
}

impl IntoArg for Vec<u8> {
    fn into_arg(self) -> Arg {
        Arg::Bytes(self)
    }
}

impl IntoArg for Arg {
    fn into_arg(self) -> Arg {
        self
    }
}

fn open(name: &'static str, steps: Vec<Step>) -> Attempt {
    Attempt { name, steps, is_open_without: true, is_absent: false }
}

fn maybe(name: &'static str, steps: Vec<Step>) -> Attempt {
    Attempt { name, steps, is_open_without: false, is_absent: false }
}

/// For paths that begin with `/`.
const HERE: i32 = libc::AT_FDCWD;

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn words(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// What no level allows.
pub(super) fn of_each_level(targets: &Targets<'_>) -> Vec<Attempt> {
    let all = [
        files::metadata(targets),
        files::contents_and_names(targets),
        files::by_a_descriptor(targets),
        files::by_requests(targets),
        files::attributes(targets),
        processes::attempts(targets),
        processes::by_shared_memory(targets),
        processes::by_sockets(targets),
        processes::of_other_kinds(),
        kernel::unneeded(),
        kernel::namespaces_and_devices(),
    ];
    all.into_iter().flatten().collect()
}
