//! The texts of a download: the report before, the report after, and the summary at the end of `--json`.
//!
//! These are pure functions, so the exact texts are tested.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::item::FileItem;
use super::outcome::OutcomeCounts;

/// The most codes that are listed one by one.
const LISTED: usize = 10;

/// The most causes of errors that are listed one by one.
const CAUSES: usize = 8;

/// How the downloads are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutionStyle {
    /// In this process.
    InProcess {
        /// Most concurrent requests.
        connections: usize,
    },
    /// In worker processes.
    Processes {
        /// Worker processes.
        workers: usize,
        /// Most concurrent requests, of all workers together.
        connections: usize,
    },
    /// On other hosts, as many at a time as their agents have workers.
    Hosts,
}

/// What a job calls its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileNoun {
    /// Flags, each with a code.
    Flag,
    /// Any files.
    File,
}

impl FileNoun {
    /// A number of them: `1 flag`, `20 flags`.
    pub fn count(self, number: u64) -> String {
        let noun = match self {
            Self::Flag => "flag",
            Self::File => "file",
        };
        format!("{number} {noun}{}", s(number))
    }
}

/// The three lines before the downloads, each with its line feed; `headline` says where the files come from.
pub fn initial(
    headline: &str,
    noun: FileNoun,
    items: &[FileItem],
    style: ExecutionStyle,
) -> String {
    let which = match items {
        [first, .., last] if items.len() > LISTED => {
            format!("from {} to {}", first.code, last.code)
        }
        few => few.iter().map(|item| item.code.as_str()).collect::<Vec<_>>().join(", "),
    };
    let in_all = |connections: usize| {
        format!("{connections} concurrent connection{} will be used", s(connections as u64))
    };
    let how = match style {
        ExecutionStyle::InProcess { connections } => in_all(connections),
        ExecutionStyle::Processes { workers, connections } => {
            let plural = if workers == 1 { "" } else { "es" };
            format!("{workers} worker process{plural}, {}", in_all(connections))
        }
        ExecutionStyle::Hosts => "The agents of other hosts will be used".to_owned(),
    };
    format!(
        "{headline}\n\
         Searching for {}: {which}\n\
         {how}.\n",
        noun.count(items.len() as u64),
    )
}

/// The results of a run, for its last report.
#[derive(Debug)]
pub struct RunResults<'r> {
    /// How many files have each status.
    pub counts: &'r OutcomeCounts,
    /// The codes of those that were not found.
    pub not_found: &'r [String],
    /// The destination, as the user named it.
    pub dest: &'r str,
    /// The time of the run.
    pub elapsed: Duration,
}

/// The lines after the downloads, each with its line feed.
pub fn final_report(noun: FileNoun, results: &RunResults<'_>) -> String {
    let OutcomeCounts { ok, not_found, error, not_done, unchanged } = *results.counts;
    let new = ok.saturating_sub(unchanged);
    let mut text = format!("{}\n{} downloaded.\n", "-".repeat(20), noun.count(new));
    if unchanged > 0 {
        text += &format!("{unchanged} unchanged.\n");
    }
    if not_found > 0 {
        text += &format!("{not_found} not found: {}\n", listed(results.not_found));
    }
    if error > 0 {
        text += &format!("{error} error{}.\n", s(error));
    }
    if not_done > 0 {
        text += &format!("{not_done} not done.\n");
    }
    if ok > 0 {
        text += &format!("Saved in: {}\n", results.dest);
    }
    text += &format!("Elapsed time: {:.2}s\n", results.elapsed.as_secs_f64());
    text
}

/// The first codes of a list, and the number of the others: `BB BC BL and 7 more`.
fn listed(codes: &[String]) -> String {
    let first = codes[..codes.len().min(LISTED)].join(" ");
    match codes.len().saturating_sub(LISTED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// The errors with the same cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CauseGroup {
    /// Their cause.
    pub cause: String,
    /// Their number.
    pub count: u64,
    /// Their codes, sorted.
    pub codes: Vec<String>,
}

/// The errors by their causes, each given with its code; the most frequent cause first.
pub fn causes<'e>(errors: impl IntoIterator<Item = (&'e str, &'e str)>) -> Vec<CauseGroup> {
    let mut groups = BTreeMap::<&str, Vec<String>>::new();
    for (code, cause) in errors {
        groups.entry(cause).or_default().push(code.to_owned());
    }
    let groups = groups.into_iter().map(|(cause, mut codes)| {
        codes.sort_unstable();
        CauseGroup { cause: cause.to_owned(), count: codes.len() as u64, codes }
    });
    let mut causes: Vec<_> = groups.collect();
    causes.sort_by_key(|group| std::cmp::Reverse(group.count));
    causes
}

/// A line for each cause, each with its line feed: `3 x connection refused: BR CN US`.
pub fn causes_report(causes: &[CauseGroup]) -> String {
    let mut text = String::new();
    let (shown, rest) = causes.split_at(causes.len().min(CAUSES));
    for CauseGroup { cause, count, codes } in shown {
        text += &format!("{count} x {cause}: {}\n", listed(codes));
    }
    if !rest.is_empty() {
        let errors: u64 = rest.iter().map(|group| group.count).sum();
        let (causes, s, es) = (rest.len(), s(rest.len() as u64), s(errors));
        text += &format!("{errors} more error{es} of {causes} other cause{s}\n");
    }
    text
}

fn s(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The summary of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The server: its label, or the URL of one without a label.
    pub server: String,
    /// The directory of the files.
    pub dest: String,
    /// `sequential`, `threads` or `processes`.
    pub mode: String,
    /// Worker processes; 0 in the modes without.
    pub workers: usize,
    /// Most concurrent requests.
    pub connections: usize,
    /// How many files have each status.
    #[serde(flatten)]
    pub counts: OutcomeCounts,
    /// The number of files.
    pub total: u64,
    /// The time of the run, in seconds with three decimals.
    pub elapsed_s: f64,
    /// Whether the run was interrupted.
    pub interrupted: bool,
    /// The errors by their causes, if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<CauseGroup>,
    /// The command that resumes the run, if something is left to do and logs are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl RunSummary {
    /// The last line of `--json`, without a line feed: `{"summary":{…}}`.
    pub fn line(&self) -> String {
        #[derive(Serialize)]
        struct SummaryLine<'a> {
            summary: &'a RunSummary,
        }
        serde_json::to_string(&SummaryLine { summary: self }).expect("a summary is plain data")
    }

    /// A duration as `elapsed_s` has it: in seconds, rounded to 0.001.
    pub fn seconds(elapsed: Duration) -> f64 {
        (elapsed.as_secs_f64() * 1e3).round() / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::selection::Selection;

    use crate::flags::codes::Code;
    use crate::flags::items;

    const HEADLINE: &str = "LOCAL site: http://localhost:40761/flags";

    fn flags(codes: &[Code]) -> Vec<FileItem> {
        codes.iter().map(|code| items::item("http://localhost:40761/flags", *code)).collect()
    }

    fn initial(codes: &[Code], style: ExecutionStyle) -> String {
        super::initial(HEADLINE, FileNoun::Flag, &flags(codes), style)
    }

    fn codes(args: &[&str]) -> Vec<Code> {
        args.iter().map(|code| code.parse().unwrap()).collect()
    }

    fn final_report(counts: &OutcomeCounts, elapsed: Duration) -> String {
        let not_found = vec!["ZZ".to_owned(); counts.not_found as usize];
        let results = RunResults { counts, not_found: &not_found, dest: "downloads", elapsed };
        super::final_report(FileNoun::Flag, &results)
    }

    #[test]
    fn of_many_codes_the_first_and_the_last_are_shown() {
        let all = Selection { all: true, ..Default::default() }.expand().unwrap();
        assert_eq!(
            initial(&all, ExecutionStyle::Processes { workers: 2, connections: 2 }),
            "LOCAL site: http://localhost:40761/flags\n\
             Searching for 194 flags: from AD to ZW\n\
             2 worker processes, 2 concurrent connections will be used.\n"
        );
        let eleven = initial(&all[..11], ExecutionStyle::InProcess { connections: 30 });
        assert!(eleven.contains("Searching for 11 flags: from AD to AZ\n"), "{eleven}");
        assert!(eleven.ends_with("\n30 concurrent connections will be used.\n"), "{eleven}");
        let ten = initial(&all[..10], ExecutionStyle::InProcess { connections: 1 });
        assert!(ten.contains("10 flags: AD, AE, AF, AG, AL, AM, AO, AR, AT, AU\n"), "{ten}");
    }

    #[test]
    fn one_of_a_kind_is_singular() {
        let one = codes(&["BR"]);
        assert_eq!(
            initial(&one, ExecutionStyle::Processes { workers: 1, connections: 1 }),
            "LOCAL site: http://localhost:40761/flags\n\
             Searching for 1 flag: BR\n\
             1 worker process, 1 concurrent connection will be used.\n"
        );
        let two = initial(&codes(&["BR", "CN"]), ExecutionStyle::InProcess { connections: 1 });
        assert!(
            two.ends_with("Searching for 2 flags: BR, CN\n1 concurrent connection will be used.\n")
        );
    }

    #[test]
    fn the_final_report_tells_only_what_happened() {
        let counts = OutcomeCounts { ok: 194, ..Default::default() };
        assert_eq!(
            final_report(&counts, Duration::from_millis(91)),
            "--------------------\n194 flags downloaded.\nSaved in: downloads\nElapsed time: 0.09s\n"
        );
        let counts = OutcomeCounts { ok: 150, not_found: 361, error: 165, ..Default::default() };
        assert_eq!(
            final_report(&counts, Duration::from_millis(7460)),
            "--------------------\n150 flags downloaded.\n361 not found: ZZ ZZ ZZ ZZ ZZ ZZ ZZ ZZ ZZ ZZ and 351 more\n\
             165 errors.\nSaved in: downloads\nElapsed time: 7.46s\n"
        );
        let counts = OutcomeCounts { ok: 1, not_found: 1, error: 1, not_done: 1, unchanged: 1 };
        assert_eq!(
            final_report(&counts, Duration::from_secs(125)),
            "--------------------\n0 flags downloaded.\n1 unchanged.\n1 not found: ZZ\n1 error.\n\
             1 not done.\nSaved in: downloads\n\
             Elapsed time: 125.00s\n"
        );
        assert!(
            final_report(&OutcomeCounts::default(), Duration::ZERO)
                .contains("\n0 flags downloaded")
        );
    }

    #[test]
    fn errors_are_told_by_their_causes_and_long_lists_are_cut() {
        let all = Selection { every: true, ..Default::default() }.expand().unwrap();
        let refused = codes(&["US", "BR", "CN"]);
        let refused = refused.iter().map(|code| (code.as_str(), "connection refused"));
        let report = causes_report(&causes(refused.chain([(all[0].as_str(), "HTTP 503")])));
        assert_eq!(report, "3 x connection refused: BR CN US\n1 x HTTP 503: AA\n");
        let report = causes_report(&causes(all.iter().map(|code| (code.as_str(), "late"))));
        assert_eq!(report, "676 x late: AA AB AC AD AE AF AG AH AI AJ and 666 more\n");
        let each: Vec<_> = (0..20).map(|n| format!("cause {n}")).collect();
        let report = causes_report(&causes(
            all.iter().map(Code::as_str).zip(each.iter().map(String::as_str)),
        ));
        assert!(report.ends_with("\n12 more errors of 12 other causes\n"), "{report}");
        assert_eq!(report.lines().count(), CAUSES + 1);
    }

    #[test]
    fn the_summary_is_one_line() {
        let counts = OutcomeCounts { ok: 194, ..Default::default() };
        let summary = RunSummary {
            server: "LOCAL".into(),
            dest: "/d".into(),
            mode: "processes".into(),
            workers: 2,
            connections: 2,
            counts,
            total: counts.total(),
            elapsed_s: RunSummary::seconds(Duration::from_micros(90_210)),
            interrupted: false,
            errors: Vec::new(),
            next: None,
        };
        assert_eq!(
            summary.line(),
            r#"{"summary":{"server":"LOCAL","dest":"/d","mode":"processes","workers":2,"connections":2,"ok":194,"not_found":0,"error":0,"not_done":0,"total":194,"elapsed_s":0.09,"interrupted":false}}"#
        );
        let back: serde_json::Value = serde_json::from_str(&summary.line()).unwrap();
        assert_eq!(serde_json::from_value::<RunSummary>(back["summary"].clone()).unwrap(), summary);
    }
}
