//! The command line of `coordinator` as typed: a download, or one of the subcommands.

use clap::{Parser, Subcommand};

use super::download::{DownloadArgs, FetchArgs};
use super::exit::ProgramExit;

/// Text of `--help` below the options.
const EXAMPLES: &str = "\
Examples:
  coordinator --all                        all flags, one worker process per CPU
  coordinator br cn B                      Brazil, China and BA to BZ
  coordinator -e -s ERROR -v               all codes, from a server that fails
  coordinator -a -s DELAY --mode threads   30 at a time, on threads
  coordinator -a -s DELAY -m 30            30 at a time, in worker processes
  coordinator -a --json | jq .status       a line of JSON for each flag
  coordinator --resume                     what the newest unfinished run left
  coordinator -a --update                  only what has changed

Exit code:
  0 all answered, 1 some errors, 2 usage, 3 could not work at all,
  130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP, 131 by SIGQUIT,
  141 the reader of standard output closed it before the end

The first signal lets requests in flight end for 2 s; a second one, at least
0.2 s later, ends the program at once.";

/// Downloads the flags of countries: by default the 20 most populous ones, into ./downloads.
#[derive(Debug, Parser)]
#[command(
    name = "coordinator",
    version,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_help_heading = "Other commands",
    disable_help_subcommand = true
)]
pub(super) struct CoordinatorArgs {
    #[command(subcommand)]
    pub command: Option<CoordinatorCommand>,
    #[command(flatten)]
    pub download: DownloadArgs,
}

macro_rules! subcommands {
    ($($name:ident: $module:ident::$args:ident,)*) => {
        /// A subcommand, with its arguments.
        #[derive(Debug, Subcommand)]
        pub(super) enum CoordinatorCommand {
            // A download asks which of its options were typed, so it is run by its caller.
            Fetch(Box<FetchArgs>),
            $($name(Box<super::$module::$args>),)*
        }

        impl CoordinatorCommand {
            pub(super) fn run(self) -> anyhow::Result<ProgramExit> {
                match self {
                    Self::Fetch(_) => unreachable!("a download is run by its caller"),
                    $(Self::$name(args) => super::$module::run(*args),)*
                }
            }
        }
    };
}

// A module has the arguments of its subcommand, whose documentation is the help, and `run`.
subcommands! {
    Serve: serve::ServeArgs,
    Bench: bench::BenchArgs,
    Logs: logs::LogsArgs,
    Timeline: timeline::TimelineArgs,
    Compare: compare::CompareArgs,
    Demo: demo::DemoArgs,
    Agent: agent::AgentArgs,
    Hosts: hosts::HostsArgs,
    Completions: completions::CompletionsArgs,
    Man: man::ManArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        use clap::CommandFactory;
        CoordinatorArgs::command().debug_assert();
    }

    #[test]
    fn the_texts_below_the_options_fit_into_80_columns() {
        use clap::{Command, CommandFactory};
        // A longer line would be wrapped at the left margin, and the columns of examples be lost.
        fn check(command: &Command) {
            let texts = [command.get_after_help(), command.get_after_long_help()];
            for line in texts
                .into_iter()
                .flatten()
                .flat_map(|text| text.to_string().lines().map(str::to_owned).collect::<Vec<_>>())
            {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&CoordinatorArgs::command());
    }

    #[test]
    fn usage_errors_name_the_option_and_what_it_takes() {
        let refused = |args: &[&str]| {
            let args = [&["coordinator"], args].concat();
            CoordinatorArgs::try_parse_from(args).expect_err("refused").to_string()
        };
        assert!(refused(&["-m", "0"]).contains("--max_req CONCURRENT must be >= 1"));
        assert!(refused(&["-l", "0"]).contains("--limit N must be >= 1"));
        assert!(refused(&["--workers", "0"]).contains("--workers N must be >= 1"));
        assert!(refused(&["-w", "-3"]).contains("--workers N must be a whole number >= 1"));
        assert!(refused(&["--retries", "-1"]).contains("--retries N must be a whole number >= 0"));
        let most = "--retries N must be <= 4294967295";
        assert!(refused(&["--retries", "99999999999"]).contains(most));
        assert!(refused(&["--limit", "99999999999999999999"]).contains("--limit N must be <= "));
        assert!(refused(&["--seed", "x"]).contains("--seed N must be a whole number >= 0"));
        assert!(refused(&["--timeout", "nan"]).contains("--timeout SECS must be"));
        assert!(refused(&["-s", "nowhere"]).contains("--server LABEL must be one of"));
    }
}
