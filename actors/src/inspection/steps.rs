//! The steps of an explanation: a sentence, the rule behind it, and where to read more.

use serde::Serialize;

/// A rule, with the chapter of the book that explains it and the section of the specification that demands it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    name: &'static str,
    link: &'static str,
    clause: Option<&'static str>,
}

/// A rule, its chapter and its section.
const fn rule(name: &'static str, link: &'static str, clause: &'static str) -> Rule {
    let clause = if clause.is_empty() {
        None
    } else {
        Some(clause)
    };
    Rule { name, link, clause }
}

const PUSHING: &str = "https://spec.matrix.org/v1.19/application-service-api/#pushing-events";
const REGISTRATION: &str = "https://spec.matrix.org/v1.19/application-service-api/#registration";
const TO_DEVICE: &str = "https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging";
const ONE_TIME: &str =
    "https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys";
const MEGOLM: &str = "https://spec.matrix.org/v1.19/client-server-api/#mmegolmv1aes-sha2";
const TRACKING: &str =
    "https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user";
const MSC3202: &str = "https://github.com/matrix-org/matrix-spec-proposals/pull/3202";
const MSC4203: &str = "https://github.com/matrix-org/matrix-spec-proposals/pull/4203";

pub(super) const FOUND: Rule = rule("stored", "to-device.md", "");
pub(super) const UNKNOWN: Rule = rule("not recorded", "for-tests.md", "");
pub(super) const INTEREST: Rule = rule("interest in an event", "registrations.md", REGISTRATION);
pub(super) const COPY: Rule = rule(
    "copies of a to-device message",
    "asked-authority.md",
    MSC4203,
);
pub(super) const OBSERVING: Rule = rule("consent to observe", "asked-consent.md", MSC4203);
pub(super) const LISTS: Rule = rule("changed, left or nothing", "leave.md", TRACKING);
pub(super) const COUNTS: Rule = rule("whose counts are sent", "asked-counts.md", MSC3202);
pub(super) const CARRIED: Rule = rule("frozen before it is sent", "transactions.md", PUSHING);
pub(super) const ATTEMPT: Rule = rule("the same bytes until a 2xx", "transactions.md", PUSHING);
pub(super) const BEHIND: Rule = rule("one transaction at a time", "transactions.md", PUSHING);
pub(super) const HELD: Rule = rule("an event waits for its left", "leave.md", MSC3202);
pub(super) const BACK_FILL: Rule = rule("older messages first", "asked-late.md", "");
pub(super) const PAUSED: Rule = rule("registrations in force", "registrations.md", REGISTRATION);
pub(super) const ASIDE: Rule = rule("set aside", "transactions.md", "");
pub(super) const OFF: Rule = rule("opting in", "registrations.md", MSC3202);
pub(super) const WITHHELD: Rule = rule("a proposal decides", "proposals.md", "");
pub(super) const SETTLED: Rule = rule("forgotten once acknowledged", "transactions.md", PUSHING);
pub(super) const DROPPED: Rule = rule("dropped", "to-device.md", TO_DEVICE);
pub(super) const INBOX: Rule = rule("kept until acknowledged", "to-device.md", TO_DEVICE);
pub(super) const CLAIMS: Rule = rule("a key is handed out once", "claim.md", ONE_TIME);
pub(super) const ROOM_KEY: Rule = rule("the room key travels to each device", "primer.md", MEGOLM);
pub(super) const NO_DEVICE: Rule = rule(
    "only existing devices have an inbox",
    "to-device.md",
    TO_DEVICE,
);

/// One step of an explanation.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// A sentence.
    pub says: String,
    /// The name of the rule.
    pub rule: &'static str,
    /// The chapter of the book that explains it, relative to the book.
    pub link: &'static str,
    /// The section of the specification, or the proposal, that demands it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clause: Option<&'static str>,
    /// The id of the transaction that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<i64>,
    /// The number of the attempt that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// When it happened or will happen, in milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
}

impl Rule {
    pub(super) fn says(self, says: impl Into<String>) -> Step {
        Step {
            says: says.into(),
            rule: self.name,
            link: self.link,
            clause: self.clause,
            transaction: None,
            attempt: None,
            at: None,
        }
    }
}

impl Step {
    pub(super) fn at(self, at: Option<i64>) -> Step {
        Step { at, ..self }
    }

    pub(super) fn in_transaction(self, transaction: i64) -> Step {
        let transaction = Some(transaction);
        Step {
            transaction,
            ..self
        }
    }
}

/// A time in milliseconds since the epoch as text: `2025-01-31 23:59:59 UTC`.
pub(super) fn shown(ms: i64) -> String {
    let (seconds, days) = (ms.div_euclid(1000), ms.div_euclid(86_400_000));
    let of_day = seconds.rem_euclid(86_400);
    // The days are counted in years that begin in March, so that the leap day is the last.
    let since = days + 719_468;
    let era = since.div_euclid(146_097);
    let of_era = since.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_people_write_them() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (1_735_689_600_000, "2025-01-01 00:00:00 UTC"),
            (1_709_251_199_999, "2024-02-29 23:59:59 UTC"),
            (951_868_800_000, "2000-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(shown(ms), text);
        }
    }

    #[test]
    fn each_chapter_exists() {
        let book = concat!(env!("CARGO_MANIFEST_DIR"), "/../spec-notes/src");
        let text = include_str!("steps.rs");
        let named = text.lines().filter(|line| line.contains(": Rule = rule("));
        let chapters = named.filter_map(|line| line.split('"').nth(3));
        let missing: Vec<_> = chapters
            .filter(|chapter| !std::path::Path::new(book).join(chapter).exists())
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
