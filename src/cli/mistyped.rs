//! Words that are no code, and what was meant: a mistyped subcommand, an option without its hyphens, a URL, a file. A
//! code has two letters, so a word of two letters may be either.

use std::path::Path;

use clap::CommandFactory;

use super::args::CoordinatorArgs;
use crate::flags::codes::AVAILABLE;

/// The similarity of two words that are alike, from 0 to 1.
const MIN_SIMILARITY: f64 = 0.75;

/// Whether the word is a subcommand.
pub(super) fn is_command(word: &str) -> bool {
    CoordinatorArgs::command().get_subcommands().any(|command| command.get_name() == word)
}

/// Words that a user may try as a subcommand for what `coordinator` does without one.
const DOWNLOADS: [&str; 4] = ["flag", "flags", "download", "downloads"];

/// The subcommand that the word probably means, or the option that has its name.
pub(super) fn meant(typed: &str) -> Option<String> {
    let word = typed.trim();
    // First, since to make the list of all options takes longer than to read the command line. Neither an option nor a
    // command has the name of a code.
    if AVAILABLE.contains(&word.to_ascii_uppercase().as_str()) {
        return None;
    }
    if let Some(option) = option_named(word) {
        return Some(option);
    }
    let commands: Vec<_> = CoordinatorArgs::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    // Two capitals are a code, so that each code can be requested.
    let is_code = word.len() == 2 && word.chars().any(|c| c.is_ascii_uppercase());
    let is_word = word.len() >= 2 && !is_code && word.chars().all(|c| c.is_ascii_alphabetic());
    let word = &*word.to_ascii_lowercase();
    if !is_word || is_command(typed) {
        return None;
    }
    if DOWNLOADS.contains(&word) {
        return Some("--all".to_owned());
    }
    let begun = || commands.iter().find(|command| command.starts_with(word));
    let alike = |command: &&String| word.len() > 2 && strsim::jaro(word, command) > MIN_SIMILARITY;
    let closest = || {
        let alike = commands.iter().filter(alike);
        alike.max_by(|a, b| strsim::jaro(word, a).total_cmp(&strsim::jaro(word, b)))
    };
    begun().or_else(closest).cloned()
}

/// The option that the word is without its hyphens.
fn option_named(word: &str) -> Option<String> {
    let name = word.to_ascii_lowercase();
    let mut command = CoordinatorArgs::command();
    // Adds --help and --version.
    command.build();
    // `server` is nearer to the command `serve` than to an option that needs a URL.
    if command.get_subcommands().any(|command| name.starts_with(command.get_name())) {
        return None;
    }
    let is_option = command.get_arguments().any(|option| option.get_long() == Some(&name));
    is_option.then(|| format!("--{name}"))
}

/// What a word that names a URL or a file means: another command, or an option.
pub(super) fn elsewhere(word: &str) -> Option<String> {
    let begin = word.to_ascii_lowercase();
    if begin.starts_with("http://") || begin.starts_with("https://") {
        return Some(format!(
            "{word} is a URL, and no code: did you mean `coordinator fetch`, or --server URL for flags?"
        ));
    }
    // Up to two letters are a code, whatever file has that name.
    (word.len() > 2 && Path::new(word).is_file()).then(|| {
        format!(
            "{word} is a file, and no code: for the URLs in it, write `coordinator fetch -i {word}`, for the \
             codes in it --codes-file {word}"
        )
    })
}

/// The message for a mistyped word.
pub(super) fn hint(word: &str, command: &str) -> String {
    let code = match word.len() {
        2 => format!(" (for the code, write {})", word.to_uppercase()),
        _ => String::new(),
    };
    format!("{word} is no command: did you mean `coordinator {command}`?{code}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_nearly_a_command_is_known() {
        let known = |word: &str| meant(word);
        for word in ["lo", "log", "lgos", "logz", "losg", "loogs"] {
            assert_eq!(known(word).as_deref(), Some("logs"), "{word}");
        }
        for (word, command) in [
            ("ti", "timeline"),
            ("timelien", "timeline"),
            ("benhc", "bench"),
            ("serv", "serve"),
            ("server", "serve"),
            ("comapre", "compare"),
            ("demos", "demo"),
            ("completion", "completions"),
            ("help", "--help"),
            ("flags", "--all"),
            ("all", "--all"),
            ("Resume", "--resume"),
            ("retry-failed", "--retry-failed"),
            ("dry-run", "--dry-run"),
            ("max_req", "--max_req"),
            ("version", "--version"),
            ("Bench", "bench"),
            ("LOGS", "logs"),
            ("demo ", "demo"),
        ] {
            assert_eq!(known(word).as_deref(), Some(command), "{word}");
        }
        // Codes with a flag, codes in capitals, letters, and words that are not like a command.
        for word in ["de", "se", "be", "co", "LO", "Lo", "aa", "l", "usa", "xyzzy", "", "logs"] {
            assert_eq!(known(word), None, "{word}");
        }
    }
}
