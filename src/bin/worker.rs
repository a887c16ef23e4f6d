//! A worker process, started by a coordinator.

use std::process::ExitCode;

fn main() -> ExitCode {
    procession_cli::cli::worker()
}
