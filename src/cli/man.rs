//! `coordinator man`: the manual pages, for those who install the programs.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use super::args::CoordinatorArgs;
use super::exit::ProgramExit;
use super::stdout;

/// Print the manual page, or write those of all commands into a directory
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct ManArgs {
    /// Where to write the pages, such as share/man/man1; made if missing
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: ManArgs) -> anyhow::Result<ProgramExit> {
    let command = CoordinatorArgs::command();
    match args.dir {
        Some(dir) => {
            let written =
                fs::create_dir_all(&dir).and_then(|()| clap_mangen::generate_to(command, &dir));
            written.with_context(|| format!("cannot write manual pages into {}", dir.display()))?;
        }
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page)?;
            stdout::print_bytes(&page)?;
        }
    }
    Ok(ProgramExit::Success)
}
