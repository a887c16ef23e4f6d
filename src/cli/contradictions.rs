//! Options that contradict each other: one of them would have to be ignored. Each is refused with the
//! names of both and with what to write instead. Where two options never go together, clap refuses
//! them; here are those of which only some values do not.

use super::args::{Color, Download, Mode, Origin, Progress};
use crate::flags::site::Site;

/// What contradicts what in the download of flags.
pub(super) fn in_download(typed: &Download) -> Result<(), String> {
    let mode = typed.mode.name();
    if let (Mode::Sequential, Some(most @ 2..)) = (typed.mode, typed.max_req) {
        return Err(format!(
            "--max_req {most} contradicts --mode sequential, which has one request at a time: \
             leave one of them away, or write --mode threads"
        ));
    }
    if let (Mode::Sequential | Mode::Threads, Some(workers)) = (typed.mode, typed.workers) {
        let instead = match typed.mode {
            Mode::Threads => format!("write --max_req {workers} for as many threads"),
            _ => "leave one of them away".to_owned(),
        };
        return Err(format!(
            "--workers {workers} contradicts --mode {mode}, which has no worker processes: \
             {instead}, or write --mode processes"
        ));
    }
    if let (Mode::Processes, Some(workers), Some(most)) = (typed.mode, typed.workers, typed.max_req)
        && workers > most
    {
        return Err(format!(
            "--workers {workers} contradicts --max_req {most}: a worker without a request has \
             nothing to do: write --max_req {workers} or more, or --workers {most}"
        ));
    }
    if typed.verbose && typed.progress == Progress::Bar {
        return Err(
            "--verbose contradicts --progress bar: a line for each flag stands in place of \
                    the bar: leave one of them away"
                .to_owned(),
        );
    }
    in_origin(&typed.origin)
}

/// What contradicts what in the choice of a server.
pub(super) fn in_origin(origin: &Origin) -> Result<(), String> {
    match origin.seed {
        Some(seed) if origin.server != Site::Error => Err(format!(
            "--seed {seed} contradicts --server {}: only the ERROR server that is started for the \
             run has faults to choose: leave --seed away, or write --server ERROR",
            origin.server
        )),
        _ => Ok(()),
    }
}

/// What contradicts what in a demonstration: how many of its tasks run at a time.
pub(super) fn in_demo(mode: Mode, workers: Option<usize>) -> Result<(), String> {
    match (mode, workers) {
        (Mode::Sequential, Some(workers @ 2..)) => Err(format!(
            "--workers {workers} contradicts --mode sequential, which runs one task at a time: \
             leave one of them away, or write --mode threads"
        )),
        _ => Ok(()),
    }
}

/// Colour that was asked for in any case, for an output that has none.
pub(super) fn in_color(color: Color, colourless: Option<&str>) -> Result<(), String> {
    match (color, colourless) {
        (Color::Always, Some(option)) => Err(format!(
            "--color always contradicts {option}, whose output has no colours: leave one of them \
             away"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(args: &[&str]) -> Option<String> {
        in_download(&Download::typed(args)).err()
    }

    #[test]
    fn what_would_have_to_be_ignored_is_refused_with_both_names() {
        for (args, one, other) in [
            (&["-m", "5", "--mode", "sequential"][..], "--max_req 5", "--mode sequential"),
            (&["-w", "3", "--mode", "threads"], "--workers 3", "--mode threads"),
            (&["-w", "1", "--mode", "sequential"], "--workers 1", "--mode sequential"),
            (&["-w", "9", "-m", "3"], "--workers 9", "--max_req 3"),
            (&["-v", "--progress", "bar"], "--verbose", "--progress bar"),
            (&["--seed", "3"], "--seed 3", "--server LOCAL"),
            (&["--seed", "3", "-s", "http://h/flags"], "--seed 3", "--server http://h/flags"),
        ] {
            let told = refused(args).unwrap_or_else(|| panic!("{args:?}"));
            assert!(told.contains(one) && told.contains(other), "{told}");
        }
        assert!(in_demo(Mode::Sequential, Some(2)).is_err());
        assert!(in_color(Color::Always, Some("--json")).is_err());
    }

    #[test]
    fn what_agrees_is_taken() {
        for args in [
            &["-m", "1", "--mode", "sequential"][..],
            &["-m", "5", "--mode", "threads"],
            &["-w", "3", "-m", "9"],
            &["-v", "--progress", "none"],
            &["--json", "--progress", "bar"],
            &["--seed", "3", "-s", "error"],
        ] {
            assert_eq!(refused(args), None, "{args:?}");
        }
        assert!(in_demo(Mode::Sequential, Some(1)).is_ok());
        assert!(in_color(Color::Always, None).is_ok());
    }
}
