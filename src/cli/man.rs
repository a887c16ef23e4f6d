//! `coordinator man`: the manual pages, for those who install the programs.

use std::fs;
use std::path::{Path, PathBuf};

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
        Some(dir) => write_pages(command, &dir)
            .with_context(|| format!("cannot write manual pages into {}", dir.display()))?,
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page)?;
            stdout::print(&with_unfilled_examples(&String::from_utf8(page)?))?;
        }
    }
    Ok(ProgramExit::Success)
}

fn write_pages(command: clap::Command, dir: &Path) -> anyhow::Result<()> {
    procession_os::directories::create_all(dir)?;
    // Not in `dir`: other pages may be there.
    let pages = tempfile::tempdir_in(dir)?;
    clap_mangen::generate_to(command, &pages)?;
    for page in fs::read_dir(&pages)? {
        let page = page?;
        let text = with_unfilled_examples(&fs::read_to_string(page.path())?);
        fs::write(dir.join(page.file_name()), text)?;
    }
    Ok(())
}

/// The page with its indented lines, which are examples and tables, as they are: else `man` moves words from one
/// to the next, and widens the gaps between them.
fn with_unfilled_examples(page: &str) -> String {
    let mut text = String::with_capacity(page.len() + 100);
    let mut is_filled = true;
    for line in page.lines() {
        if is_filled == line.starts_with("  ") {
            is_filled = !is_filled;
            text += if is_filled { ".fi\n" } else { ".nf\n" };
        }
        text += line;
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_not_filled() {
        let page = ".SH EXTRA\nExamples:\n  a   b\n  c\n\nmore\n  d\n.SH VERSION\n";
        let expected =
            ".SH EXTRA\nExamples:\n.nf\n  a   b\n  c\n.fi\n\nmore\n.nf\n  d\n.fi\n.SH VERSION\n";
        assert_eq!(with_unfilled_examples(page), expected);
    }
}
