//! The time of `--since`, in all accepted forms.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A time as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Since {
    /// This time.
    At(Timestamp),
    /// This time on the day on which the run began.
    TimeOfDay(Time),
    /// This duration before now.
    Ago(SignedDuration),
    /// This duration after the begin of the run.
    AfterBegin(SignedDuration),
}

impl Since {
    /// The time, if the run began at `begin`.
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
            Self::AfterBegin(after) => begin.checked_add(after).unwrap_or(Timestamp::MAX),
        }
    }
}

/// A time that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "--since WHEN must be a time (23:49:33, 2026-11-22T23:49:33), how long ago (30s, 5m), or how long \
     after the run began (+1.5s)"
)]
pub(super) struct SinceError;

/// Parses a time.
pub(super) fn parse(typed: &str) -> Result<Since, SinceError> {
    let duration = |text: &str| {
        // A text with colons is a time of day, and not hours, minutes and seconds.
        let duration = text.parse::<SignedDuration>().ok().filter(|_| !text.contains(':'));
        duration.filter(|duration| !duration.is_negative())
    };
    if let Some(after) = typed.strip_prefix('+') {
        return duration(after).map(Since::AfterBegin).ok_or(SinceError);
    }
    let local = |civil: DateTime| {
        civil.to_zoned(TimeZone::system()).map(|at| Since::At(at.timestamp())).ok()
    };
    None.or_else(|| typed.parse().ok().map(Since::At))
        .or_else(|| duration(typed).map(Since::Ago))
        // Tried before a time of day, whose parser accepts a date with a time, too.
        .or_else(|| typed.parse().ok().and_then(local))
        .or_else(|| typed.parse().ok().map(Since::TimeOfDay))
        .ok_or(SinceError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_several_forms() {
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
