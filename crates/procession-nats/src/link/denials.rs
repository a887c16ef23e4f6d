//! [`Denials`]: what the servers do not allow this user. They tell it beside the requests, which get no answer.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use async_nats::ServerError;

/// What the server says, before the subject in quotation marks.
const DENIED: &str = "permissions violation for publish to ";
/// The same of a subscription.
const UNHEARD: &str = "permissions violation for subscription to ";

/// The subjects that were denied last.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<VecDeque<String>>);

impl Denials {
    /// As many as may be on their way at the same time, and some more.
    const MOST: usize = 4096;

    /// Takes what a server has told.
    pub(super) fn note(&self, error: &ServerError) {
        let ServerError::Other(text) = error else { return };
        let Some(subject) = denied(text) else { return };
        let mut denied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.len() == Self::MOST {
            denied.pop_front();
        }
        denied.push_back(subject.to_owned());
    }

    /// Whether this was denied since it was last asked for.
    pub(super) fn take(&self, subject: &str) -> bool {
        let mut denied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = denied.len();
        denied.retain(|other| other != subject);
        denied.len() < before
    }

    /// Whether this was denied, and not asked for since.
    pub(super) fn has(&self, subject: &str) -> bool {
        let denied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        denied.iter().any(|other| other == subject)
    }

    /// What was denied last.
    pub(super) fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).back().cloned()
    }
}

fn denied(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let at = [DENIED, UNHEARD].iter().find_map(|what| Some(lower.find(what)? + what.len()))?;
    text[at..].strip_prefix('"')?.split_once('"').map(|(subject, _)| subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_that_was_denied_is_known_until_it_is_asked_for() {
        let denials = Denials::default();
        let told = |text: &str| denials.note(&ServerError::Other(text.to_owned()));
        told("Permissions Violation for Publish to \"p.t.B.j.1\"");
        told("Permissions Violation for Subscription to \"p.u.>\" using queue \"q\"");
        told("Stale Connection");
        assert_eq!(denials.last().as_deref(), Some("p.u.>"));
        assert!(denials.has("p.t.B.j.1") && !denials.has("p.t.B.j"));
        assert!(denials.take("p.t.B.j.1"));
        assert!(!denials.take("p.t.B.j.1") && !denials.has("p.t.B.j.1"), "asked for before");
        for n in 0..2 * Denials::MOST {
            told(&format!("Permissions Violation for Publish to \"s.{n}\""));
        }
        assert!(!denials.take("p.u.>") && denials.take(&format!("s.{}", Denials::MOST)));
    }
}
