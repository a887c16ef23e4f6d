//! Parsers of option values, for `value_parser`. Their errors name the option and the accepted values.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Command, Error};

use crate::files::{client, read};

/// The longest list of codes or URLs that is read, in bytes: some million lines.
const LONGEST_LIST: u64 = 256 << 20;

/// The longest file of headers that is read, in bytes.
const LONGEST_HEADERS: u64 = 1 << 20;

/// An option value that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    #[error("{option} must be a whole number >= {least}")]
    NotWhole { option: &'static str, least: usize },
    #[error("{option} must be >= {least}")]
    TooSmall { option: &'static str, least: usize },
    #[error("{option} must be <= {most}")]
    TooLarge { option: &'static str, most: u64 },
    #[error("{option} must be {least} to {most}")]
    OutOfRange { option: &'static str, least: usize, most: usize },
    #[error("{option} must be a number of seconds > 0")]
    NotSeconds { option: &'static str },
    #[error("--progress HOW must be auto, bar, lines, lines:SECS or none")]
    NotProgress,
    #[error("--rate N must be a number of requests per second > 0")]
    NotRate,
    #[error("--header HEADER must be like 'Name: value', or @FILE with such lines")]
    NotHeader,
    #[error("--header @FILE must be readable text: {file}: {why}")]
    HeaderFile { file: String, why: String },
    #[error("{option} must be a whole number, with k, M or G for more")]
    NotSize { option: &'static str },
}

/// A parser, and values that shells complete. It may accept others.
#[derive(Debug, Clone)]
pub(super) struct Suggesting<P> {
    parser: P,
    values: &'static [&'static str],
}

/// This parser, with values that shells complete.
pub(super) fn suggesting<P: TypedValueParser>(
    parser: P,
    values: &'static [&'static str],
) -> Suggesting<P> {
    Suggesting { parser, values }
}

impl<P: TypedValueParser> TypedValueParser for Suggesting<P> {
    type Value = P::Value;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<P::Value, Error> {
        self.parser.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.values.iter().map(PossibleValue::new)))
    }
}

/// The text of a file, or of standard input if the file is `-`, with a name for messages.
pub(super) fn read_text(file: &Path) -> io::Result<(String, String)> {
    if file.as_os_str() != "-" {
        let text = read::text_at_most(LONGEST_LIST, File::open(file)?)?;
        return Ok((file.display().to_string(), text));
    }
    Ok(("standard input".to_owned(), read::text_at_most(LONGEST_LIST, io::stdin())?))
}

/// A whole number in this range.
pub(super) fn whole(
    option: &'static str,
    range: RangeInclusive<usize>,
) -> impl Fn(&str) -> Result<usize, ValueError> + Clone + Send + Sync + 'static {
    let (least, most) = range.into_inner();
    move |typed| match typed.parse() {
        Ok(number) if number < least => Err(ValueError::TooSmall { option, least }),
        Ok(number) if number > most => Err(ValueError::TooLarge { option, most: most as u64 }),
        Ok(number) => Ok(number),
        Err(_) if is_number(typed) => Err(ValueError::TooLarge { option, most: most as u64 }),
        Err(_) => Err(ValueError::NotWhole { option, least }),
    }
}

/// A whole number that is at least 1.
pub(super) fn positive(
    option: &'static str,
) -> impl Fn(&str) -> Result<usize, ValueError> + Clone + Send + Sync + 'static {
    whole(option, 1..=usize::MAX)
}

/// A whole number of any type that is at least 0.
pub(super) fn unsigned<N: FromStr + TryFrom<u64>>(
    option: &'static str,
) -> impl Fn(&str) -> Result<N, ValueError> + Clone + Send + Sync + 'static {
    let most = if N::try_from(u64::MAX).is_ok() { u64::MAX } else { u32::MAX.into() };
    move |typed| {
        typed.parse().map_err(|_| match is_number(typed) {
            true => ValueError::TooLarge { option, most },
            false => ValueError::NotWhole { option, least: 0 },
        })
    }
}

/// Whether it is a whole number, however large.
fn is_number(typed: &str) -> bool {
    !typed.is_empty() && typed.bytes().all(|byte| byte.is_ascii_digit())
}

/// A whole number in this range; the error names the range, whatever is wrong.
pub(super) fn within(
    option: &'static str,
    range: RangeInclusive<usize>,
) -> impl Fn(&str) -> Result<usize, ValueError> + Clone + Send + Sync + 'static {
    let (least, most) = range.into_inner();
    move |typed| match typed.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(ValueError::OutOfRange { option, least, most }),
    }
}

/// A number of seconds above 0.
pub(super) fn seconds(
    option: &'static str,
) -> impl Fn(&str) -> Result<Duration, ValueError> + Clone + Send + Sync + 'static {
    move |typed| {
        let seconds = typed.parse().ok().filter(|seconds| *seconds > 0.0);
        seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .filter(|timeout| !timeout.is_zero())
            .ok_or(ValueError::NotSeconds { option })
    }
}

/// A number of requests per second above 0.
pub(super) fn rate(typed: &str) -> Result<f64, ValueError> {
    let rate = typed.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.ok_or(ValueError::NotRate)
}

/// Headers: one as typed, or those in the lines of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TypedHeaders(pub(super) Vec<(String, String)>);

/// A header, or `@FILE` for the lines of a file, which other users do not see among the arguments.
pub(super) fn headers(typed: &str) -> Result<TypedHeaders, ValueError> {
    let header = |typed: &str| client::header(typed).ok_or(ValueError::NotHeader);
    let Some(file) = typed.strip_prefix('@') else { return Ok(TypedHeaders(vec![header(typed)?])) };
    let text = File::open(file).and_then(|file| read::text_at_most(LONGEST_HEADERS, file));
    let text = text.map_err(|error| ValueError::HeaderFile {
        file: file.to_owned(),
        why: error.to_string(),
    })?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    Ok(TypedHeaders(lines.map(header).collect::<Result<_, _>>()?))
}

/// A number that may end in k, M or G, for powers of 1024.
pub(super) fn size(
    option: &'static str,
) -> impl Fn(&str) -> Result<u64, ValueError> + Clone + Send + Sync + 'static {
    move |typed| {
        let lower = typed.to_ascii_lowercase();
        let (number, shift) = match lower.as_bytes().last() {
            Some(b'k') => (&lower[..lower.len() - 1], 10),
            Some(b'm') => (&lower[..lower.len() - 1], 20),
            Some(b'g') => (&lower[..lower.len() - 1], 30),
            _ => (&lower[..], 0),
        };
        let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
        size.ok_or(ValueError::NotSize { option })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_have_a_suffix() {
        let size = size("--size SIZE");
        assert_eq!(size("14"), Ok(14));
        assert_eq!((size("8k"), size("4M"), size("1g")), (Ok(8 << 10), Ok(4 << 20), Ok(1 << 30)));
        for odd in ["", "k", "-1", "1.5", "4MB", "99999999999G", "é"] {
            assert!(size(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn seconds_are_positive_and_finite() {
        let seconds = seconds("--timeout SECS");
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for odd in ["", "0", "-1", "nan", "inf", "1e-30", "1e300"] {
            assert_eq!(seconds(odd), Err(ValueError::NotSeconds { option: "--timeout SECS" }));
        }
    }
}
