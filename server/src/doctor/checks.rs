//! The table of all checks: a stable code, a severity, and advice.

use serde::Serialize;

use super::search::Search;

/// The severity of a finding, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The appservice does not work, or it harms another appservice or users.
    Error,
    /// The appservice works, but probably not as intended.
    Warning,
    /// For information.
    Note,
}

/// A check: what the doctor can find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Check {
    /// A stable identifier.
    pub(super) code: &'static str,
    /// The severity.
    pub(super) severity: Severity,
    /// Advice to the operator.
    pub(super) advice: &'static str,
}

macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident = $severity:ident $code:literal: $advice:literal;)*) => {
        $($(#[$doc])* pub(super) const $name: Check = Check { code: $code, severity: Severity::$severity, advice: $advice };)*

        /// All checks of the doctor.
        #[cfg(test)]
        pub(super) const ALL: &[Check] = &[$($name),*];
    };
}

// ANCHOR: checks
checks! {
    /// Checks of the registration file itself.
    UNREADABLE = Error "unreadable": "Correct the file; until then the server ignores it.";
    MISSPELT = Warning "misspelt": "Write the key as it is known, or ignore this if it is meant for another server.";
    NEIGHBOUR = Warning "neighbour": "Correct that file too; it could not be compared.";

    /// Checks of ids, tokens and senders.
    DUPLICATE_ID = Error "duplicate-id": "Give each service an id of its own.";
    DUPLICATE_TOKEN = Error "duplicate-as-token": "Give each service an as_token of its own; otherwise the server cannot tell which service calls it.";
    DUPLICATE_SENDER = Error "duplicate-sender": "Give each service a sender_localpart of its own; both would act for one user.";
    SENDER_CLAIMED = Error "sender-claimed": "Rename the sender or narrow the namespace; two services would decide over one user.";
    SENDER_SPELLING = Warning "sender-spelling": "Use only a-z, 0-9 and . _ = - / + in sender_localpart; other servers refuse such a user.";
    SAME_TOKENS = Warning "same-tokens": "Make hs_token and as_token differ; whoever is sent the one could ask with the other.";
    SHARED_TOKEN = Warning "shared-hs-token": "Give each service an hs_token of its own; otherwise each accepts transactions meant for the other.";
    SHORT_TOKEN = Warning "short-token": "Use at least 16 random characters, such as `openssl rand -hex 32` prints.";

    /// Checks of namespaces.
    OVERLAP = Error "overlap": "Let the two namespaces differ, or make both not exclusive.";
    CLAIMS_EVERYBODY = Error "claims-everybody": "Narrow the pattern, for example to '@irc_.*'; with this one, no other user can register.";
    OBSERVES_EVERYBODY = Warning "observes-everybody": "Narrow the pattern, or name the service in `observe` if it is meant to see everybody's messages.";
    MATCHES_NOBODY = Warning "matches-nobody": "Correct the pattern or remove it; it has no effect.";
    ONLY_UNUSUAL = Warning "only-unusual": "Write the pattern in lower case if it should match ordinary user names.";
    NEVER_EXCLUSIVE = Warning "never-exclusive": "Put the exclusive pattern first: the first that matches decides.";
    UNDECIDED = Warning "undecided": "Simplify the pattern; it is too complicated to compare with others.";
    LOOSE_DOT = Note "loose-dot": "Write '\\.' for the dots of the server's name; here only this server's users count, so nothing changes.";

    /// Checks of what the server sends to the appservice.
    NOT_SENT = Warning "not-sent": "Set url, or remove the keys that ask for data.";
    NO_URL = Note "no-url": "Nothing to do if the service only calls the server and needs no events.";
    URL_PATH = Warning "url-path": "Remove '/_matrix/…' from url; the server adds it.";
    MISSING_FLAG = Warning "missing-flag": "Add the key with the value true.";
    WITHOUT_FLAG = Note "without-flag": "Add the key if the service uses one of these frameworks; --framework NAME checks for one only.";

    /// Checks of how the appservice answers.
    NO_CONNECTION = Error "no-connection": "Start the service, or correct url.";
    NO_ANSWER = Error "no-answer": "Check the service: it accepts a connection but does not answer in time.";
    TOKEN_REFUSED = Error "token-refused": "Give the service the registration's hs_token; it would refuse every transaction.";
    PING_FAILED = Error "ping-failed": "Look at the service's log; it will probably fail on transactions too.";
    TOKEN_UNCHECKED = Error "token-unchecked": "Make the service compare the token in Authorization with its hs_token; now anyone can send it events.";
    NOT_READ = Error "not-read": "Have the service answer 200 only when it has taken a transaction: what it does not read is lost.";
    ANSWERS_ANYTHING = Warning "answers-anything": "Answer 404 M_UNRECOGNIZED to paths that the service does not know; new kinds of questions rely on it.";
    TOKEN_UNCLEAR = Note "token-unclear": "Nothing to do if the service checks the token; an answer of 401 or 403 would show it.";
    NO_PING = Note "no-ping": "Nothing to do; the service does not support ping (added in v1.7), so it cannot end the server's back-off early.";
}
// ANCHOR_END: checks

/// A problem found in one registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The registration's file, as given on the command line.
    pub file: String,
    /// The severity.
    pub severity: Severity,
    /// A stable identifier.
    pub code: &'static str,
    /// The problem, in a sentence.
    pub what: String,
    /// Advice to the operator, in a sentence.
    pub advice: &'static str,
}

/// The examination of one registration: the findings so far, and the remaining budget for searches.
pub(super) struct Examination<'a> {
    pub(super) file: &'a str,
    pub(super) findings: &'a mut Vec<Finding>,
    pub(super) search: Search,
}

impl<'a> Examination<'a> {
    pub(super) fn new(file: &'a str, findings: &'a mut Vec<Finding>) -> Examination<'a> {
        Examination {
            file,
            findings,
            search: Search::default(),
        }
    }

    pub(super) fn found(&mut self, check: Check, what: impl Into<String>) {
        self.findings.push(Finding {
            file: self.file.to_owned(),
            severity: check.severity,
            code: check.code,
            what: what.into(),
            advice: check.advice,
        });
    }
}
