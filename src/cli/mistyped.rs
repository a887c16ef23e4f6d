//! Words that look like a subcommand that was typed wrongly. A code is two letters long, so such a
//! word may be taken for one.

use clap::CommandFactory;

use super::args::Args;
use crate::flags::codes::AVAILABLE;

/// How alike two words must be, from 0 to 1.
const ALIKE: f64 = 0.75;

/// Whether the word is a subcommand.
pub(super) fn is_command(word: &str) -> bool {
    Args::command().get_subcommands().any(|command| command.get_name() == word)
}

/// The subcommand that was probably meant by the word; `--help` for `help`.
pub(super) fn meant(typed: &str) -> Option<String> {
    let word = typed.trim();
    if word.eq_ignore_ascii_case("help") {
        return Some("--help".to_owned());
    }
    let commands: Vec<_> =
        Args::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    // Two capitals are a code: so can each be asked for.
    let is_code = word.len() == 2 && word.chars().any(|c| c.is_ascii_uppercase());
    let is_word = word.len() >= 2 && !is_code && word.chars().all(|c| c.is_ascii_alphabetic());
    let word = &*word.to_ascii_lowercase();
    if !is_word || is_command(typed) || AVAILABLE.contains(&word.to_uppercase().as_str()) {
        return None;
    }
    let begun = || commands.iter().find(|command| command.starts_with(word));
    let alike = |command: &&String| word.len() > 2 && strsim::jaro(word, command) > ALIKE;
    let closest = || {
        let alike = commands.iter().filter(alike);
        alike.max_by(|a, b| strsim::jaro(word, a).total_cmp(&strsim::jaro(word, b)))
    };
    begun().or_else(closest).cloned()
}

/// What to say of it.
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
            ("Bench", "bench"),
            ("LOGS", "logs"),
            ("demo ", "demo"),
        ] {
            assert_eq!(known(word).as_deref(), Some(command), "{word}");
        }
        // Codes with a flag, codes in capitals, letters, and words that are like no command.
        for word in ["de", "se", "be", "co", "LO", "Lo", "aa", "l", "usa", "xyzzy", "", "logs"] {
            assert_eq!(known(word), None, "{word}");
        }
    }
}
