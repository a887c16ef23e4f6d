//! A mark: an inherited descriptor by which a process knows what it was started for, even if its environment or
//! its standard streams were replaced. It is a memory file, and its name is the text. Linux only.
//!
//! | in the file | written by |
//! |---|---|
//! | the id of the process that was started with it (4 bytes) | the process that made the mark |
//! | words | the process that was started, where it has no other way to say something |

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// What the names of these files begin with, as `/proc` shows them.
const PREFIX: &str = "/memfd:procession-mark:";
/// What the system appends.
const SUFFIX: &str = " (deleted)";

/// Where the words begin in the file, and how many bytes of them are read.
const WORDS: u64 = 4;
const MOST_WORDS: usize = 200;

/// A mark that is to be inherited by a process that is started with it.
#[derive(Debug)]
pub struct Mark(OwnedFd);

impl Mark {
    /// A mark with this text, of at most 200 bytes; `None` where there are no such files.
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    pub fn create(text: &str) -> io::Result<Option<Self>> {
        use rustix::fs::{MemfdFlags, memfd_create};
        let file = memfd_create(format!("procession-mark:{text}"), MemfdFlags::CLOEXEC)?;
        // A number above 2: the new process gets other files as its standard streams.
        Ok(Some(Self(rustix::io::fcntl_dupfd_cloexec(file, 3)?)))
    }

    /// A mark with this text; `None` where there are no such files.
    #[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
    pub fn create(_text: &str) -> io::Result<Option<Self>> {
        Ok(None)
    }

    /// The descriptor, which has the same number in the process that is started with it.
    pub fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Notes the process that was started with the mark.
    pub fn note_started(&self, process: u32) -> io::Result<()> {
        let written = rustix::io::pwrite(&self.0, &process.to_le_bytes(), 0)?;
        debug_assert_eq!(written, 4, "a memory file takes all bytes");
        Ok(())
    }

    /// What a process has [said](FoundMark::say) by the mark.
    pub fn said(&self) -> Option<String> {
        let mut words = [0; MOST_WORDS];
        let len = rustix::io::pread(&self.0, &mut words, WORDS).ok()?;
        (len > 0).then(|| String::from_utf8_lossy(&words[..len]).into_owned())
    }
}

impl AsFd for Mark {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A mark that another process has made.
#[derive(Debug, PartialEq, Eq)]
pub struct FoundMark {
    /// Its text.
    pub text: String,
    link: PathBuf,
}

impl FoundMark {
    fn of_link(link: PathBuf) -> Option<Self> {
        Some(Self { text: text(&link)?, link })
    }

    /// The process that was started with it, if that was noted.
    pub fn started(&self) -> Option<u32> {
        let mut process = [0; 4];
        File::open(&self.link).ok()?.read_exact_at(&mut process, 0).ok()?;
        Some(u32::from_le_bytes(process)).filter(|process| *process != 0)
    }

    /// Says something to the process that made the mark, in at most 200 bytes. An error is ignored.
    pub fn say(&self, words: &str) {
        let file = File::options().write(true).open(&self.link);
        let _ = file.and_then(|file| file.write_all_at(words.as_bytes(), WORDS));
    }
}

/// The mark that this process has inherited, if it has one. Those that it makes itself do not count.
pub fn inherited() -> Option<FoundMark> {
    let open = fs::read_dir("/proc/self/fd").ok()?.flatten();
    open.into_iter().find_map(|entry| {
        let mark = FoundMark::of_link(entry.path())?;
        is_passed_on(Path::new(&entry.file_name())).then_some(mark)
    })
}

/// The marks that a process has open. None if this process may not look.
pub fn of_process(process: Pid) -> Vec<FoundMark> {
    let process = PathBuf::from(format!("/proc/{}", process.as_raw_nonzero()));
    // Without the right to read this link, the links of its descriptors cannot be read, either. There may be thousands.
    if fs::read_link(process.join("exe")).is_err() {
        return Vec::new();
    }
    let open = fs::read_dir(process.join("fd"));
    let mut marks = Vec::new();
    for entry in open.into_iter().flatten().flatten() {
        let link = entry.path();
        match fs::read_link(&link) {
            Ok(target) => {
                if let Some(text) = text_of(target) {
                    marks.push(FoundMark { text, link });
                }
            }
            // The other descriptors are refused as well, and there may be thousands.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            Err(_) => {}
        }
    }
    marks
}

/// Whether the programs that this process starts or becomes inherit the descriptor of this number.
fn is_passed_on(number: &Path) -> bool {
    const CLOSED_BY_EXEC: u32 = 0o2_000_000;
    let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(number)).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & CLOSED_BY_EXEC == 0)
}

/// Closes the mark that this process has inherited under this number. Does nothing if the number is
/// that of another file.
pub fn close(number: i32) {
    if text(&Path::new("/proc/self/fd").join(number.to_string())).is_some() {
        // SAFETY: the descriptor was inherited, and no value in this process owns it: marks that
        // this process makes are not closed by their number. A caller that closes it twice finds no
        // mark under it the second time.
        unsafe { libc::close(number) };
    }
}

fn text(link: &Path) -> Option<String> {
    text_of(fs::read_link(link).ok()?)
}

fn text_of(target: PathBuf) -> Option<String> {
    let link = target.into_os_string().into_string().ok()?;
    let text = link.strip_prefix(PREFIX)?;
    Some(text.strip_suffix(SUFFIX).unwrap_or(text).to_owned())
}

#[cfg(all(test, target_os = "linux", not(feature = "portable")))]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_what_it_was_made_for() {
        let mark = Mark::create("7:8").expect("a file").expect("a mark");
        assert!(mark.number() > 2);
        let link = Path::new("/proc/self/fd").join(mark.number().to_string());
        assert_eq!(text(&link).as_deref(), Some("7:8"));
        assert_eq!(inherited(), None, "it is this process's own");
        let marks = of_process(rustix::process::getpid());
        let found = marks.iter().find(|found| found.text == "7:8").expect("the mark");
        assert_eq!((found.started(), mark.said()), (None, None));
        mark.note_started(4711).expect("a note");
        found.say("in vain");
        assert_eq!((found.started(), mark.said().as_deref()), (Some(4711), Some("in vain")));
        assert!(!is_passed_on(Path::new(&mark.number().to_string())));
        let other = fs::File::open("/dev/null").expect("a file");
        close(other.as_raw_fd());
        assert!(other.metadata().is_ok(), "another file is left alone");
    }
}
