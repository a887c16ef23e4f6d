//! `coordinator completions`: a completion script for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::CoordinatorArgs;
use super::exit::ProgramExit;
use super::stdout;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell that will read it
    shell: Shell,
}

pub(super) fn run(args: CompletionsArgs) -> anyhow::Result<ProgramExit> {
    // Generated into memory, since the generator panics where it cannot write.
    let mut script = Vec::new();
    let mut command = CoordinatorArgs::command();
    clap_complete::generate(args.shell, &mut command, "coordinator", &mut script);
    stdout::print_bytes(&script)?;
    Ok(ProgramExit::Success)
}
