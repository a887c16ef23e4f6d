//! Downloads the flags of the world with worker processes; see `coordinator --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    procession_cli::cli::coordinator()
}
