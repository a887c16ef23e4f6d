//! The command line of `bench` as typed.

use crate::cli::value;

/// Measure what tasks cost on this machine, in each mode
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coordinator bench                     a table, in under a minute
  coordinator bench --quick             in a few seconds, with rougher figures
  coordinator bench --json | jq .advice

Other load distorts the figures. Where other programs have a quarter of the
CPUs, or nine measurements lie more than threefold apart, no advice is given.

Exit code:
  0 measured, 3 could not work at all, 130 interrupted by Ctrl-C,
  143 by SIGTERM, 129 by SIGHUP, 131 by SIGQUIT,
  141 the reader of standard output closed it")]
pub(in crate::cli) struct BenchArgs {
    /// One line of JSON instead of the table
    #[arg(long)]
    pub json: bool,
    /// A few seconds instead of a minute
    #[arg(long)]
    pub quick: bool,
    /// Worker processes, and threads to compare them with [default: one per CPU]
    #[arg(short, long, value_name = "N", value_parser = value::positive("--workers N"), allow_negative_numbers = true)]
    pub workers: Option<usize>,
}
