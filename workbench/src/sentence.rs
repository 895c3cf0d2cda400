//! The sentences of a scenario: what a person, a bridge or one of its users does.

use std::time::Duration;

use regex::Regex;

/// What somebody does, or is to find.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// Create a room.
    Creates {
        /// The name of the room in the scenario.
        room: String,
        /// The users that are invited.
        invited: Vec<String>,
        /// Whether events are to be encrypted.
        encrypted: bool,
        /// Whether everybody can join.
        public: bool,
    },
    /// Join a room.
    Joins(String),
    /// Leave a room.
    Leaves(String),
    /// `invite`, `kick`, `ban` or `unban`, the user, the room.
    Moves(String, String, String),
    /// Send a text to a room; the event's id is captured under the third name.
    Says(String, String, Option<String>),
    /// Create the keys of the device, and upload them with so many one-time keys and a fallback key.
    Uploads(usize),
    /// Upload further one-time keys.
    UploadsMore(usize),
    /// Encrypt a text for the members of a room, and send it.
    Encrypts(String, String),
    /// Find an event of this user that decrypts to this text.
    Decrypts(String, String),
    /// Claim a one-time key of a user's device.
    Claims(String, String),
    /// Log in on another device.
    LogsIn(String),
    /// Log the device out.
    LogsOut,
    /// Create a device of an appservice's user.
    CreatesDevice(String),
    /// Delete a device of an appservice's user.
    DeletesDevice(String),
    /// Create cross-signing keys, upload them, and sign the device.
    SetsUpCrossSigning,
    /// Make a `/sync` request.
    Syncs,
    /// Make a `/sync` request that waits for something new.
    BeginsToSync,
    /// Register a user of the bridge, perhaps with a device.
    Registers(String, Option<String>),
    /// Answer transactions with a status: so many, or all from now on.
    Answers(u16, Option<usize>),
    /// Wait before each answer to a transaction.
    AnswersAfter(Duration),
    /// Close the connection instead of answering so many transactions.
    Cuts(usize),
    /// Keep each transaction without an answer.
    Holds,
    /// Answer the oldest transaction that is held.
    Releases(u16),
    /// Stop listening.
    Refuses,
    /// Listen again.
    Accepts,
    /// Receive no transaction besides those that were expected.
    IsSentNothing,
    /// Receive no two different transactions under one id.
    IsSentOneBodyEach,
    /// Expect nothing of the transactions up to now.
    Ignores,
    /// Add the bridge's registration while the server runs.
    IsAdded,
}

// ANCHOR: pattern
/// A pattern of a sentence, and what a sentence of this pattern means.
///
/// `{room}`, `{user}`, `{users}`, `{text}`, `{word}`, `{n}`, `{often}` and `{time}` stand for arguments; `[…]` can be left out.
pub struct Pattern {
    /// The pattern.
    pub text: &'static str,
    /// Whether only a bridge can do it.
    pub is_for_bridges: bool,
    means: fn(&Arguments) -> Result<Deed, String>,
}
// ANCHOR_END: pattern

const fn of_all(text: &'static str, means: fn(&Arguments) -> Result<Deed, String>) -> Pattern {
    Pattern {
        text,
        is_for_bridges: false,
        means,
    }
}

const fn of_bridges(text: &'static str, means: fn(&Arguments) -> Result<Deed, String>) -> Pattern {
    Pattern {
        text,
        is_for_bridges: true,
        means,
    }
}

/// All sentences.
pub const PATTERNS: &[Pattern] = &[
    of_all(
        "creates room {room}[, inviting {users}][, encrypted][, public]",
        |a| {
            Ok(Deed::Creates {
                room: a.text(0).trim_start_matches('!').to_owned(),
                invited: a.users(1),
                encrypted: a.whole.contains(", encrypted"),
                public: a.whole.contains(", public"),
            })
        },
    ),
    of_all("joins {room}", |a| Ok(Deed::Joins(a.text(0)))),
    of_all("leaves {room}", |a| Ok(Deed::Leaves(a.text(0)))),
    of_all("invites {user} to {room}", |a| Ok(a.moves("invite"))),
    of_all("kicks {user} from {room}", |a| Ok(a.moves("kick"))),
    of_all("bans {user} from {room}", |a| Ok(a.moves("ban"))),
    of_all("unbans {user} from {room}", |a| Ok(a.moves("unban"))),
    of_all("says {text} in {room}[, captured as {word}]", |a| {
        Ok(Deed::Says(a.text(0), a.text(1), a.some(2)))
    }),
    of_all("uploads its keys[, with {n} one-time keys]", |a| {
        Ok(Deed::Uploads(a.count(0)?.unwrap_or(5)))
    }),
    of_all("uploads {n} more one-time keys", |a| {
        Ok(Deed::UploadsMore(a.count(0)?.unwrap_or(0)))
    }),
    of_all("encrypts {text} in {room}", |a| {
        Ok(Deed::Encrypts(a.text(0), a.text(1)))
    }),
    of_all("decrypts {text} from {user}", |a| {
        Ok(Deed::Decrypts(a.text(0), a.text(1)))
    }),
    of_all("claims a key of {user} on device {word}", |a| {
        Ok(Deed::Claims(a.text(0), a.text(1)))
    }),
    of_all("sets up cross-signing", |_| Ok(Deed::SetsUpCrossSigning)),
    of_all("syncs", |_| Ok(Deed::Syncs)),
    of_all("begins to sync", |_| Ok(Deed::BeginsToSync)),
    of_all("logs in on {word}", |a| Ok(Deed::LogsIn(a.text(0)))),
    of_all("logs out", |_| Ok(Deed::LogsOut)),
    of_bridges("creates device {word}", |a| {
        Ok(Deed::CreatesDevice(a.text(0)))
    }),
    of_bridges("deletes device {word}", |a| {
        Ok(Deed::DeletesDevice(a.text(0)))
    }),
    of_bridges("registers ghost {word}[ with device {word}]", |a| {
        Ok(Deed::Registers(a.text(0), a.some(1)))
    }),
    of_bridges("answers {n}[ {often}]", |a| {
        Ok(Deed::Answers(a.status(0)?, a.times(1)?))
    }),
    of_bridges("answers after {time}", |a| {
        Ok(Deed::AnswersAfter(duration(&a.text(0))?))
    }),
    of_bridges("cuts the connection[ {often}]", |a| {
        Ok(Deed::Cuts(a.times(0)?.unwrap_or(1)))
    }),
    of_bridges("holds transactions", |_| Ok(Deed::Holds)),
    of_bridges("answers the held transaction with {n}", |a| {
        Ok(Deed::Releases(a.status(0)?))
    }),
    of_bridges("refuses connections", |_| Ok(Deed::Refuses)),
    of_bridges("accepts connections", |_| Ok(Deed::Accepts)),
    of_bridges("is sent nothing more", |_| Ok(Deed::IsSentNothing)),
    of_bridges("is sent no two transactions under one id", |_| {
        Ok(Deed::IsSentOneBodyEach)
    }),
    of_bridges("ignores what it was sent so far", |_| Ok(Deed::Ignores)),
    of_bridges("is added", |_| Ok(Deed::IsAdded)),
];

/// What the status of a whole answer is like.
pub(crate) const FINAL: &str = "an answer has 200 to 599";

/// Whether a server can end a request with this status.
pub(crate) fn is_final(status: u16) -> bool {
    (200..=599).contains(&status)
}

/// The largest number in a sentence: of keys, or of transactions.
const MOST: usize = 1_000;

/// The arguments of a sentence.
struct Arguments {
    whole: String,
    given: Vec<Option<String>>,
}

impl Arguments {
    fn some(&self, index: usize) -> Option<String> {
        self.given.get(index).cloned().flatten()
    }

    fn text(&self, index: usize) -> String {
        self.some(index).unwrap_or_default()
    }

    /// A number, if it is given.
    fn count(&self, index: usize) -> Result<Option<usize>, String> {
        self.some(index).map(|number| count(&number)).transpose()
    }

    fn status(&self, index: usize) -> Result<u16, String> {
        let text = self.text(index);
        let status = text.parse().ok().filter(|status| is_final(*status));
        status.ok_or_else(|| format!("status {text}: {FINAL}"))
    }

    fn times(&self, index: usize) -> Result<Option<usize>, String> {
        let times = self.some(index);
        let number = times.as_deref().map(|times| match times {
            "once" => Ok(1),
            "twice" => Ok(2),
            times => count(times.trim_end_matches(" times")),
        });
        number.transpose()
    }

    fn users(&self, index: usize) -> Vec<String> {
        let text = self.text(index).replace(" and ", ", ");
        let users = text.split(", ").filter(|user| !user.is_empty());
        users.map(str::to_owned).collect()
    }

    fn moves(&self, how: &str) -> Deed {
        Deed::Moves(how.to_owned(), self.text(0), self.text(1))
    }
}

impl Pattern {
    /// The regular expression of the pattern.
    #[must_use]
    pub fn regex(&self) -> String {
        let mut out = regex::escape(self.text);
        let user = r"@[A-Za-z0-9._=+:-]+";
        for (name, expression) in [
            ("room", r"(![A-Za-z0-9._-]+)".to_owned()),
            ("users", format!("({user}(?:(?:, | and ){user})*)")),
            ("user", format!("({user})")),
            ("text", "\"([^\"]*)\"".to_owned()),
            ("word", r"([A-Za-z0-9._-]+)".to_owned()),
            ("n", r"([0-9]+)".to_owned()),
            ("time", r"([0-9]+ ?[a-z]+)".to_owned()),
            ("often", r"(once|twice|[0-9]+ times)".to_owned()),
        ] {
            out = out.replace(&format!(r"\{{{name}\}}"), &expression);
        }
        format!("^{}$", out.replace(r"\[", "(?:").replace(r"\]", ")?"))
    }

    fn read(&self, sentence: &str) -> Option<Result<Deed, String>> {
        let found = Regex::new(&self.regex()).ok()?;
        let found = found.captures(sentence)?;
        let given = found.iter().skip(1);
        let given = given.map(|group| group.map(|group| group.as_str().to_owned()));
        Some((self.means)(&Arguments {
            whole: sentence.to_owned(),
            given: given.collect(),
        }))
    }
}

/// What a sentence means.
///
/// # Errors
/// If an argument is wrong, or no pattern fits; then the sentences that begin alike are named.
pub fn read(sentence: &str, by_bridge: bool) -> Result<Deed, String> {
    let mut known = PATTERNS.iter();
    if let Some((pattern, deed)) = known.find_map(|p| p.read(sentence).map(|deed| (p, deed))) {
        if pattern.is_for_bridges && !by_bridge {
            return Err(format!("only a bridge {sentence}"));
        }
        return deed.map_err(|why| format!("{sentence:?}: {why}"));
    }
    let usable = || PATTERNS.iter().filter(|p| by_bridge || !p.is_for_bridges);
    let first = sentence.split(' ').next().unwrap_or_default();
    let alike = usable().filter(|p| p.text.split(' ').next() == Some(first));
    let mut alike: Vec<&str> = alike.map(|p| p.text).collect();
    if alike.is_empty() {
        alike = usable().map(|p| p.text).collect();
    }
    Err(format!(
        "unknown sentence {sentence:?}; known: {}",
        alike.join(" | ")
    ))
}

fn count(number: &str) -> Result<usize, String> {
    let found = number.parse().ok().filter(|number| *number <= MOST);
    found.ok_or_else(|| format!("{number} is too large; the most is {MOST}"))
}

/// The longest time.
const LONGEST: Duration = Duration::from_hours(24 * 3_660);

/// Reads a time such as `5 minutes`, `200 ms` or `1s`.
///
/// # Errors
/// If it is no time, or longer than ten years.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
    let ms = match text[digits..].trim() {
        "ms" => 1,
        "s" | "second" | "seconds" => 1_000,
        "minute" | "minutes" => 60_000,
        "hour" | "hours" => 3_600_000,
        "day" | "days" => 86_400_000,
        _ => 0,
    };
    if digits == 0 || ms == 0 {
        return Err(format!(
            "{text:?} is no time; write \"5 minutes\" or \"200 ms\""
        ));
    }
    let number: Option<u64> = text[..digits].parse().ok();
    let time = number
        .and_then(|number| number.checked_mul(ms))
        .map(Duration::from_millis);
    time.filter(|time| *time <= LONGEST)
        .ok_or_else(|| format!("{text:?} is too long; the longest is ten years"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_of_each_pattern_is_read() {
        for pattern in PATTERNS {
            let mut sentence = pattern.text.replace(['[', ']'], "");
            for (name, value) in [
                ("room", "!r"),
                ("users", "@a and @b"),
                ("user", "@a"),
                ("text", "\"x y\""),
                ("word", "w"),
                ("n", "207"),
                ("time", "5 minutes"),
                ("often", "twice"),
            ] {
                sentence = sentence.replace(&format!("{{{name}}}"), value);
            }
            let deed = pattern.read(&sentence);
            assert!(deed.is_some(), "{sentence}: {}", pattern.regex());
            assert_eq!(Some(read(&sentence, true)), deed);
        }
    }

    #[test]
    fn arguments_that_cannot_be_meant_are_refused() {
        for (sentence, why) in [
            (
                "answers after 5 min",
                "\"5 min\" is no time; write \"5 minutes\" or \"200 ms\"",
            ),
            (
                "answers after 99999999999999999999 ms",
                "\"99999999999999999999 ms\" is too long; the longest is ten years",
            ),
            ("answers 70000", "status 70000: an answer has 200 to 599"),
            (
                "answers the held transaction with 99",
                "status 99: an answer has 200 to 599",
            ),
            (
                "answers 500 99999999999999999999 times",
                "99999999999999999999 is too large; the most is 1000",
            ),
            (
                "cuts the connection 1001 times",
                "1001 is too large; the most is 1000",
            ),
            (
                "uploads 99999999999999999999 more one-time keys",
                "99999999999999999999 is too large; the most is 1000",
            ),
            (
                "uploads its keys, with 1001 one-time keys",
                "1001 is too large; the most is 1000",
            ),
        ] {
            assert_eq!(read(sentence, true), Err(format!("{sentence:?}: {why}")));
        }
    }

    #[test]
    fn arguments_are_optional() {
        let plain = Deed::Creates {
            room: "r".to_owned(),
            invited: vec!["@a".to_owned(), "@b".to_owned()],
            encrypted: false,
            public: true,
        };
        let sentence = "creates room !r, inviting @a and @b, public";
        assert_eq!(read(sentence, false), Ok(plain));
        assert_eq!(read("answers 500", true), Ok(Deed::Answers(500, None)));
        assert_eq!(
            read("answers 500 3 times", true),
            Ok(Deed::Answers(500, Some(3)))
        );
        let wrong = read("invites @a", false).unwrap_err();
        assert!(
            wrong.ends_with("known: invites {user} to {room}"),
            "{wrong}"
        );
        assert!(read("holds transactions", false).is_err());
    }
}
