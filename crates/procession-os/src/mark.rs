//! A mark: an inherited descriptor by which a process knows what it was started for, even if its environment or
//! its standard streams were replaced. It is an empty memory file, and its name is the text. Linux only.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What the names of these files begin with, as `/proc` shows them.
const PREFIX: &str = "/memfd:procession-mark:";
/// What the system appends.
const SUFFIX: &str = " (deleted)";

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
}

impl AsFd for Mark {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The text of the mark that this process has inherited, if it has one. Those that it makes itself do
/// not count.
pub fn inherited() -> Option<String> {
    let open = fs::read_dir("/proc/self/fd").ok()?.flatten();
    open.into_iter().find_map(|entry| {
        let text = text(&entry.path())?;
        is_passed_on(Path::new(&entry.file_name())).then_some(text)
    })
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
    let link = fs::read_link(link).ok()?.into_os_string().into_string().ok()?;
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
        assert!(!is_passed_on(Path::new(&mark.number().to_string())));
        let other = fs::File::open("/dev/null").expect("a file");
        close(other.as_raw_fd());
        assert!(other.metadata().is_ok(), "another file is left alone");
    }
}
