//! The controlling terminal, and the characters that control any.

use std::os::fd::AsRawFd;

use rustix::fs::{Mode, OFlags, open};

/// Whether the character controls a terminal or changes the direction of the text around it: it may neither be
/// printed as it is nor be part of the name of a file.
pub fn is_control(character: char) -> bool {
    const DIRECTIONS: [char; 3] = ['\u{61c}', '\u{200e}', '\u{200f}'];
    character.is_control()
        || DIRECTIONS.contains(&character)
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Gives up the controlling terminal of this process. It is in no foreground group, so to read from
/// the terminal would stop it for ever; without one, `/dev/tty` cannot be opened, which is an error
/// that a task can see.
pub fn give_up() {
    // The leader of a session would take the terminal away from all others. The number of a leader in
    // another namespace is 0, for which the safe interface has no value.
    // SAFETY: both calls only give numbers.
    if unsafe { libc::getsid(0) == libc::getpid() } {
        return;
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(terminal) = open("/dev/tty", flags, Mode::empty()) else { return };
    // SAFETY: the request takes no argument.
    unsafe {
        libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY);
    }
}
