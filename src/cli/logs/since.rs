//! Since when, in the ways people say it.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A time as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Since {
    /// At this time.
    At(Timestamp),
    /// On the day on which the run began.
    TimeOfDay(Time),
    /// So long ago.
    Ago(SignedDuration),
    /// So long after the run began.
    IntoTheRun(SignedDuration),
}

impl Since {
    /// The time that is meant, if the run began at `begin`.
    pub(super) fn resolve(self, begin: Timestamp) -> Timestamp {
        let now = Timestamp::now();
        match self {
            Self::At(at) => at,
            Self::TimeOfDay(time) => {
                let day = begin.to_zoned(TimeZone::system()).date();
                day.to_datetime(time)
                    .to_zoned(TimeZone::system())
                    .map_or(begin, |at| at.timestamp())
            }
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
            Self::IntoTheRun(into) => begin.checked_add(into).unwrap_or(Timestamp::MAX),
        }
    }
}

/// Reads what was typed.
pub(super) fn parse(typed: &str) -> Result<Since, String> {
    let duration = |text: &str| {
        // What looks like a time of day is not so many hours, minutes and seconds.
        let duration = text.parse::<SignedDuration>().ok().filter(|_| !text.contains(':'));
        duration.filter(|duration| !duration.is_negative())
    };
    if let Some(into) = typed.strip_prefix('+') {
        return duration(into).map(Since::IntoTheRun).ok_or_else(refusal);
    }
    let local = |civil: DateTime| {
        civil.to_zoned(TimeZone::system()).map(|at| Since::At(at.timestamp())).ok()
    };
    None.or_else(|| typed.parse().ok().map(Since::At))
        .or_else(|| duration(typed).map(Since::Ago))
        // A date with a time is a time of day to the parser of these.
        .or_else(|| typed.parse().ok().and_then(local))
        .or_else(|| typed.parse().ok().map(Since::TimeOfDay))
        .ok_or_else(refusal)
}

fn refusal() -> String {
    "--since WHEN must be a time (23:49:33, 2026-11-22T23:49:33), how long ago (30s, 5m), or how \
     long after the run began (+1.5s)"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_taken_as_people_say_it() {
        let begin: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let resolve = |typed: &str| parse(typed).unwrap().resolve(begin).to_string();
        assert_eq!(resolve("+1.5s"), "2026-11-22T12:00:01.5Z");
        assert_eq!(resolve("2026-11-22T11:00:00Z"), "2026-11-22T11:00:00Z");
        assert_eq!(parse("5m"), Ok(Since::Ago(SignedDuration::from_mins(5))));
        for time in ["10:30", "23:49:33", "00:00:01"] {
            assert!(matches!(parse(time), Ok(Since::TimeOfDay(_))), "{time}");
        }
        assert!(matches!(parse("2026-11-22 11:00"), Ok(Since::At(_))));
        for bad in ["", "yesterday", "+", "-5s", "25:00", "99:99:99", "+x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
