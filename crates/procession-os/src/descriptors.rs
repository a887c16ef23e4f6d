//! The standard descriptors of this process.

use std::os::fd::{AsRawFd, IntoRawFd};

use rustix::fs::{Mode, OFlags, open};

/// Opens `/dev/null` in place of standard descriptors that are closed. The next file that is opened
/// would get such a number otherwise, be it a pipe or shared memory, and what the program prints
/// would be written into it.
pub fn fill_standard() {
    // The lowest free number is given out first.
    while let Ok(file) = open("/dev/null", OFlags::RDWR, Mode::empty()) {
        if file.as_raw_fd() > 2 {
            return;
        }
        let _stays_open = file.into_raw_fd();
    }
}
