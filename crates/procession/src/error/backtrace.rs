//! [`Backtrace`]: where a worker crashed, from the record that its signal handler has written.
//!
//! A worker that crashes may have been taken over, so the numbers of the record may have any value. They are
//! only looked up: in the mappings of the record, and then in the symbols of files that this process can read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use procession_os::crash::CrashRecord;
use serde::{Deserialize, Serialize};

use crate::printable::printable;

/// The calls that a worker was in when a signal ended it, the innermost first. Linux only; the names need
/// the feature `backtrace`.
///
/// The names are looked up at the first use, in the symbol tables of the files that the worker's code was
/// loaded from. A file that was stripped or replaced gives none.
///
/// ```
/// # use procession::Death;
/// fn report(death: &Death) {
///     if let Some(backtrace) = &death.backtrace {
///         eprintln!("{backtrace}"); // a call in each line
///     }
/// }
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "Vec<Frame>", into = "Vec<Frame>")]
pub struct Backtrace {
    calls: Arc<Calls>,
}

struct Calls {
    places: Vec<CodePlace>,
    frames: OnceLock<Vec<Frame>>,
}

/// An address, by the file that was mapped there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CodePlace {
    File(Mapped),
    /// Code that is in no file, such as that of a just-in-time compiler.
    Address(u64),
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapped {
    pub path: Arc<Path>,
    /// The device and the number of the file, as the worker saw it.
    pub id: FileId,
    /// Offset of the instruction in the file.
    pub offset: u64,
}

/// Identifies a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    pub major: u32,
    pub minor: u32,
    pub inode: u64,
}

/// A call of a [`Backtrace`].
///
/// ```
/// # use procession::Backtrace;
/// fn names(backtrace: &Backtrace) -> Vec<&str> {
///     backtrace.frames().iter().filter_map(|frame| frame.function.as_deref()).collect()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Frame {
    /// The function, demangled, if the file has its symbol.
    pub function: Option<String>,
    /// The program or library. `None`: code that was not loaded from a file.
    pub file: Option<PathBuf>,
    /// Offset of the instruction in the file, in bytes; without a file, its address.
    pub offset: u64,
}

impl fmt::Display for Frame {
    /// The function, or else the file and the offset: `libpng16.so.16+0x1a2b`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().and_then(Path::file_name);
        match (&self.function, file) {
            (Some(function), _) => f.write_str(&printable(function)),
            (None, Some(file)) => {
                write!(f, "{}+{:#x}", printable(&file.to_string_lossy()), self.offset)
            }
            (None, None) => write!(f, "{:#x}", self.offset),
        }
    }
}

impl Backtrace {
    /// From the record of a crash; `None` if it has no calls.
    pub(crate) fn from_record(record: &CrashRecord) -> Option<Self> {
        let mappings: Vec<_> =
            record.maps.split(|byte| *byte == b'\n').filter_map(Mapping::parse).collect();
        let places: Vec<_> =
            record.addresses.iter().map(|address| Mapping::place(&mappings, *address)).collect();
        let calls = Calls { places, frames: OnceLock::new() };
        (!calls.places.is_empty()).then(|| Self { calls: Arc::new(calls) })
    }

    /// The calls, the innermost first; at most 100.
    ///
    /// ```
    /// # use procession::TaskError;
    /// fn report(error: &TaskError) {
    ///     let TaskError::WorkerDied(death) = error else { return };
    ///     for frame in death.backtrace.iter().flat_map(|backtrace| backtrace.frames()) {
    ///         println!("{frame} in {:?}", frame.file);
    ///     }
    /// }
    /// ```
    pub fn frames(&self) -> &[Frame] {
        self.calls.frames.get_or_init(|| self.calls.places.iter().map(to_frame).collect())
    }

    /// The functions of the task that were called last, at most four, the innermost first: without the C
    /// library's functions that end a process, and without what called the task.
    pub(super) fn summary(&self) -> Option<String> {
        const MOST: usize = 4;
        /// The calls between `abort` and the system call.
        const DEEPEST_ABORT: usize = 8;
        let frames = self.frames();
        let names =
            |frame: &Frame, test: fn(&str) -> bool| frame.function.as_deref().is_some_and(test);
        let ending = frames.iter().take(DEEPEST_ABORT).rposition(|frame| names(frame, is_ending));
        let of_task = |frame: &&Frame| !names(frame, is_library);
        let mut shown: Vec<_> = frames[ending.map_or(0, |at| at + 1)..]
            .iter()
            .skip_while(|frame| !of_task(frame))
            .take_while(of_task)
            .map(|frame| task_of_run(&frame.to_string()).to_owned())
            .collect();
        shown.dedup();
        shown.truncate(MOST);
        (!shown.is_empty()).then(|| shown.join(" <- "))
    }
}

/// Functions by which the C library ends a process.
fn is_ending(name: &str) -> bool {
    let name = name.trim_start_matches("__GI_").trim_start_matches('_');
    let starts = ["abort", "fortify_fail", "gsignal", "libc_message", "pthread_kill", "raise"];
    starts.iter().any(|start| name.starts_with(start))
}

/// Functions of this library and of the standard library.
pub(crate) fn is_library(name: &str) -> bool {
    let name = name.trim_start_matches('<');
    let starts = ["procession::", "std::", "core::", "alloc::", "__rust", "rust_begin_unwind"];
    starts.iter().any(|start| name.starts_with(start))
}

/// `app::thumb` for `<app::thumb as procession::task::Task>::run`.
fn task_of_run(function: &str) -> &str {
    let task = function.split_once(" as procession::task::Task>::run").map(|(task, _)| task);
    task.map_or(function, |task| task.trim_start_matches('<'))
}

impl From<Backtrace> for Vec<Frame> {
    fn from(backtrace: Backtrace) -> Self {
        backtrace.frames().to_vec()
    }
}

/// The names were looked up where the worker crashed.
impl From<Vec<Frame>> for Backtrace {
    fn from(mut frames: Vec<Frame>) -> Self {
        frames.truncate(MOST_FRAMES);
        let place = |frame: &Frame| match &frame.file {
            None => CodePlace::Address(frame.offset),
            Some(path) => CodePlace::File(Mapped {
                path: path.as_path().into(),
                id: FileId::default(),
                offset: frame.offset,
            }),
        };
        let places = frames.iter().map(place).collect();
        Self { calls: Arc::new(Calls { places, frames: OnceLock::from(frames) }) }
    }
}

/// As many as a crash record has.
const MOST_FRAMES: usize = 100;

impl PartialEq for Backtrace {
    fn eq(&self, other: &Self) -> bool {
        self.calls.places == other.calls.places
    }
}

impl Eq for Backtrace {}

impl fmt::Debug for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.frames()).finish()
    }
}

/// One call in each line, numbered from 0.
impl fmt::Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, frame) in self.frames().iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{number:4}: {frame}")?;
        }
        Ok(())
    }
}

fn to_frame(place: &CodePlace) -> Frame {
    match place {
        CodePlace::File(mapped) => Frame {
            function: function_at(mapped),
            file: Some(mapped.path.to_path_buf()),
            offset: mapped.offset,
        },
        CodePlace::Address(address) => Frame { function: None, file: None, offset: *address },
    }
}

#[cfg(all(feature = "backtrace", target_os = "linux"))]
use super::symbols::function_at;

#[cfg(not(all(feature = "backtrace", target_os = "linux")))]
fn function_at(_: &Mapped) -> Option<String> {
    None
}

/// A line of `/proc/PID/maps`: `start-end rwxp offset major:minor inode path`, in hexadecimal except the
/// inode.
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    file: Option<(Arc<Path>, FileId)>,
}

impl Mapping {
    fn parse(line: &[u8]) -> Option<Self> {
        use std::os::unix::ffi::OsStrExt;
        let mut words = line.splitn(6, |byte| *byte == b' ');
        let mut text = || words.next().and_then(|word| std::str::from_utf8(word).ok());
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = text()?.split_once('-')?;
        let _rights = text()?;
        let offset = hex(text()?)?;
        let (major, minor) = text()?.split_once(':')?;
        let inode = text()?.parse().ok()?;
        let [major, minor] = [major, minor].map(|part| u32::from_str_radix(part, 16).ok());
        let id = FileId { major: major?, minor: minor?, inode };
        let path = words.next().unwrap_or_default().trim_ascii();
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        let is_file = inode != 0 && path.first() == Some(&b'/');
        let file = is_file.then(|| (Path::new(std::ffi::OsStr::from_bytes(path)).into(), id));
        Some(Self { start: hex(start)?, end: hex(end)?, offset, file })
    }

    fn place(mappings: &[Self], address: u64) -> CodePlace {
        let here = mappings.iter().find(|it| it.start <= address && address < it.end);
        match here.and_then(|it| it.file.as_ref().map(|file| (it, file))) {
            Some((mapping, (path, id))) => CodePlace::File(Mapped {
                path: Arc::clone(path),
                id: *id,
                offset: (address - mapping.start).wrapping_add(mapping.offset),
            }),
            None => CodePlace::Address(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(maps: &[u8], addresses: &[u64]) -> CrashRecord {
        let (addresses, maps) = (addresses.to_vec(), maps.to_vec());
        CrashRecord { signal: 11, pid: 1, addresses, maps, refused_call: None }
    }

    fn frame(function: &str) -> Frame {
        Frame { function: Some(function.to_owned()), file: None, offset: 0 }
    }

    fn summary(functions: &[&str]) -> Option<String> {
        let frames = OnceLock::from(functions.iter().copied().map(frame).collect::<Vec<_>>());
        Backtrace { calls: Arc::new(Calls { places: Vec::new(), frames }) }.summary()
    }

    #[test]
    fn an_address_is_told_by_its_file() {
        let maps =
            b"1000-2000 r-xp 00000400 fe:01 99                 /no/such/lib a.so (deleted)\n\
            3000-4000 r-xp 00000000 00:00 0\nnonsense\n5000-6000 r-xp 0 0:0 7 [vdso]\n";
        let backtrace = Backtrace::from_record(&record(maps, &[0x1234, 0x3000, 0x9999, 0x5001]));
        let backtrace = backtrace.expect("four calls");
        let shown: Vec<_> = backtrace.frames().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["lib a.so+0x634", "0x3000", "0x9999", "0x5001"]);
        assert_eq!(backtrace.frames()[0].file.as_deref(), Some(Path::new("/no/such/lib a.so")));
        assert_eq!(backtrace.to_string().lines().count(), 4);
        assert_eq!(Backtrace::from_record(&record(maps, &[])), None);
    }

    #[test]
    fn names_that_a_worker_has_chosen_are_shown_without_control_characters() {
        let name = "\u{1b}]0;owned\u{7}";
        let shown = frame(name).to_string();
        assert_eq!(shown, r"\u{1b}]0;owned\u{7}");
        let file = Some(PathBuf::from(format!("/tmp/{name}")));
        let shown = Frame { function: None, file, offset: 1 }.to_string();
        assert_eq!(shown, r"\u{1b}]0;owned\u{7}+0x1");
        assert_eq!(summary(&[name]).as_deref(), Some(r"\u{1b}]0;owned\u{7}"));
    }

    #[test]
    fn a_record_of_random_bytes_is_no_fault() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..1000 {
            let mut maps: Vec<u8> =
                (0..200).map(|_| *random.choice(b"0f-: rx/\n").unwrap_or(&b'0')).collect();
            maps.push(random.u8(..));
            let addresses = [0, 1, u64::MAX, random.u64(..)];
            let backtrace = Backtrace::from_record(&record(&maps, &addresses)).expect("calls");
            assert_eq!(backtrace.frames().len(), 4);
            let _ = backtrace.summary();
        }
    }

    #[test]
    fn the_summary_has_the_functions_of_the_task() {
        let runner = "<procession::registry::Registry>::runner::{closure#0}";
        let run = "<app::thumb as procession::task::Task>::run";
        let body = "<app::thumb as procession::task::Task>::run::__procession_body";
        let of_c = summary(&["png_read_row", "png::read", body, run, runner, "main"]);
        assert_eq!(of_c.as_deref(), Some("png_read_row <- png::read <- app::thumb"));
        let abort = ["__pthread_kill_implementation", "raise", "abort", "f", runner];
        assert_eq!(summary(&abort).as_deref(), Some("f"));
        let deep = ["a", "b", "c", "d", "e", "f"];
        assert_eq!(summary(&deep).as_deref(), Some("a <- b <- c <- d"));
        assert_eq!(summary(&["f"; 100]).as_deref(), Some("f"), "a recursion");
        let in_std = ["core::ptr::read", "app::f", runner];
        assert_eq!(summary(&in_std).as_deref(), Some("app::f"));
        assert_eq!(summary(&[runner]), None);
    }
}
