//! Decides whether some id is matched by several patterns, by searching the product of their automata.

use std::collections::BTreeSet;

use actors::services::anchored;

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};

/// The budget of one search: each combination of states that it visits costs one unit for each pattern. Ordinary patterns need a
/// few hundred; the bound is for malicious ones.
const STATES: usize = 40_000;

/// The budget of all searches for one registration together.
const ALL_STATES: usize = 8 * STATES;

/// The memory limit, in bytes, of one pattern's automaton.
const AUTOMATON: usize = 4 << 20;

/// The longest user id or alias, in bytes. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#user-identifiers
const LENGTH: usize = 255;

/// The characters that users can choose in a localpart. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#user-identifiers
pub(super) const CHOSEN: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789_-.=/+";

/// The characters that may appear in an appservice's localparts and in aliases.
pub(super) const POSSIBLE: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789_-.=/+\
    ABCDEFGHIJKLMNOPQRSTUVWXYZ#!$%&'()*,;<>?@[\\]^`{|}~\"";

/// The characters of a server name. The dot comes first, so that examples prefer it: a pattern's unescaped `.` usually stands for
/// one.
const SERVER: &[u8] = b".abcdefghijklmnopqrstuvwxyz0123456789-";

/// The ids to search among: a sigil, one or more `letters`, `:` and a server name.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdSpace<'a> {
    /// `@`, `#` or `!`.
    pub(super) sigil: u8,
    /// The characters of the part before the colon, preferred ones first in examples.
    pub(super) letters: &'static [u8],
    /// The server's name; `None` for any.
    pub(super) server: Option<&'a str>,
}

/// The result of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SearchResult {
    /// An id; none is shorter.
    Found(String),
    /// No id exists.
    Nothing,
    /// The search was given up, because the patterns are too complicated.
    Undecided,
}

/// The position in the grammar of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum GrammarPosition {
    Start,
    /// In the part before the colon; `true` after its first character.
    Local(bool),
    /// In the given server name, after this many bytes.
    Named(usize),
    /// In an arbitrary server name; `true` after its first character.
    Any(bool),
}

/// The state of an automaton: already matched, whatever follows, or still undecided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PatternState {
    Matched,
    At(LazyStateID),
}

/// One pattern as a lazy automaton, whose states are built when the search reaches them.
struct Automaton {
    dfa: DFA,
    cache: Cache,
}

/// The automaton is too large, or it met a byte that it cannot handle.
struct GaveUp;

impl Automaton {
    fn new(pattern: &str) -> Result<Automaton, GaveUp> {
        let config = DFA::config()
            .match_kind(MatchKind::All)
            // Exact for ASCII, and the search generates only ASCII ids.
            .unicode_word_boundary(true)
            .cache_capacity(AUTOMATON)
            .skip_cache_capacity_check(true)
            // State ids must stay valid, so give up when the cache is full instead of clearing it.
            .minimum_cache_clear_count(Some(0));
        let dfa = DFA::builder()
            .configure(config)
            .thompson(thompson::Config::new().nfa_size_limit(Some(AUTOMATON)))
            .build(&anchored(pattern))
            .map_err(|_| GaveUp)?;
        let cache = dfa.create_cache();
        Ok(Automaton { dfa, cache })
    }

    fn start(&mut self) -> Result<PatternState, GaveUp> {
        let config = start::Config::new().anchored(Anchored::Yes);
        let start = self.dfa.start_state(&mut self.cache, &config);
        start.map(PatternState::At).map_err(|_| GaveUp)
    }

    fn step(&mut self, state: PatternState, byte: u8) -> Result<PatternState, GaveUp> {
        let PatternState::At(id) = state else {
            return Ok(PatternState::Matched);
        };
        settled(self.dfa.next_state(&mut self.cache, id, byte))
    }

    /// Whether the pattern matches when the id ends here.
    fn matches(&mut self, state: PatternState) -> Result<bool, GaveUp> {
        let PatternState::At(id) = state else {
            return Ok(true);
        };
        let end = settled(self.dfa.next_eoi_state(&mut self.cache, id))?;
        Ok(end == PatternState::Matched)
    }
}

fn settled<E>(next: Result<LazyStateID, E>) -> Result<PatternState, GaveUp> {
    match next {
        Ok(id) if id.is_match() => Ok(PatternState::Matched),
        Ok(id) if id.is_quit() => Err(GaveUp),
        Ok(id) => Ok(PatternState::At(id)),
        Err(_) => Err(GaveUp),
    }
}

impl IdSpace<'_> {
    /// Every byte that may come next, with the position after it.
    fn next(&self, place: GrammarPosition) -> Vec<(u8, GrammarPosition)> {
        let each = |letters: &[u8], to: GrammarPosition| {
            letters.iter().map(|b| (*b, to)).collect::<Vec<_>>()
        };
        match (place, self.server) {
            (GrammarPosition::Start, _) => vec![(self.sigil, GrammarPosition::Local(false))],
            (GrammarPosition::Local(has_letter), server) => {
                let mut all = each(self.letters, GrammarPosition::Local(true));
                if has_letter {
                    let after =
                        server.map_or(GrammarPosition::Any(false), |_| GrammarPosition::Named(0));
                    all.push((b':', after));
                }
                all
            }
            (GrammarPosition::Named(at), Some(name)) => match name.as_bytes().get(at) {
                Some(byte) => vec![(*byte, GrammarPosition::Named(at + 1))],
                None => Vec::new(),
            },
            (GrammarPosition::Named(_), None) => Vec::new(),
            (GrammarPosition::Any(has_letter), _) => {
                let dot = usize::from(!has_letter);
                each(&SERVER[dot..], GrammarPosition::Any(true))
            }
        }
    }

    fn may_end(&self, place: GrammarPosition) -> bool {
        match place {
            GrammarPosition::Start | GrammarPosition::Local(_) => false,
            GrammarPosition::Named(at) => self.server.is_none_or(|name| name.len() == at),
            GrammarPosition::Any(has_letter) => has_letter,
        }
    }
}

/// The searches for one registration, with their remaining budget.
#[derive(Debug)]
pub(super) struct Search {
    left: usize,
}

impl Default for Search {
    fn default() -> Self {
        Search { left: ALL_STATES }
    }
}

// ANCHOR: find
impl Search {
    /// A shortest id for which `wanted` holds, given which of the patterns match the id.
    ///
    /// Searches breadth first through the product of the patterns' automata and the grammar of ids. Each combination of states is
    /// visited once, so that loops end, and their number is limited.
    #[must_use]
    pub(super) fn find(
        &mut self,
        ids: IdSpace<'_>,
        patterns: &[&str],
        wanted: impl FnMut(&[bool]) -> bool,
    ) -> SearchResult {
        let mut states = self.left.min(STATES);
        self.left -= states;
        let verdict = search(ids, patterns, wanted, &mut states);
        self.left += states;
        verdict.unwrap_or(SearchResult::Undecided)
    }
}

fn search(
    ids: IdSpace<'_>,
    patterns: &[&str],
    mut wanted: impl FnMut(&[bool]) -> bool,
    left: &mut usize,
) -> Result<SearchResult, GaveUp> {
    let mut automata = patterns
        .iter()
        .map(|p| Automaton::new(p))
        .collect::<Result<Vec<_>, _>>()?;
    let begin: Vec<PatternState> = automata
        .iter_mut()
        .map(Automaton::start)
        .collect::<Result<_, _>>()?;
    let mut seen = BTreeSet::from([(GrammarPosition::Start, begin.clone())]);
    let mut open = vec![(String::new(), GrammarPosition::Start, begin)];
    while !open.is_empty() {
        let mut longer = Vec::new();
        for (id, place, states) in open {
            if ids.may_end(place) {
                let matched = automata.iter_mut().zip(&states).map(|(a, s)| a.matches(*s));
                if wanted(&matched.collect::<Result<Vec<_>, _>>()?) {
                    return Ok(SearchResult::Found(id));
                }
            }
            if id.len() == LENGTH {
                continue;
            }
            for (byte, place) in ids.next(place) {
                let states = automata.iter_mut().zip(&states);
                let states: Vec<PatternState> = states
                    .map(|(a, s)| a.step(*s, byte))
                    .collect::<Result<_, _>>()?;
                if seen.insert((place, states.clone())) {
                    *left = left.checked_sub(patterns.len()).ok_or(GaveUp)?;
                    longer.push((format!("{id}{}", char::from(byte)), place, states));
                }
            }
        }
        open = longer;
    }
    Ok(SearchResult::Nothing)
}
// ANCHOR_END: find

/// Whether two patterns begin with different literal characters. Then no id matches both, and no search is needed.
#[must_use]
pub(super) fn are_apart(a: &str, b: &str) -> bool {
    let (a, b) = (beginning(a), beginning(b));
    !a.starts_with(b) && !b.starts_with(a)
}

/// A literal prefix of every id that the pattern matches; not always the longest one.
fn beginning(pattern: &str) -> &str {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    if pattern.contains('|') {
        return "";
    }
    let end = pattern
        .find(|c: char| r"\.+*?()[]{}^$".contains(c))
        .unwrap_or(pattern.len());
    let (letters, rest) = pattern.split_at(end);
    match letters.chars().next_back() {
        // A quantifier makes the last character optional.
        Some(last) if rest.starts_with(['*', '?', '{']) => {
            &letters[..letters.len() - last.len_utf8()]
        }
        _ => letters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: IdSpace<'_> = IdSpace {
        sigil: b'@',
        letters: POSSIBLE,
        server: Some("test"),
    };

    fn both(a: &str, b: &str) -> SearchResult {
        Search::default().find(USERS, &[a, b], |matched| matched.iter().all(|m| *m))
    }

    fn found(id: &str) -> SearchResult {
        SearchResult::Found(id.to_owned())
    }

    #[test]
    fn two_patterns_meet_or_do_not() {
        let cases = [
            ("@irc_.*", "@irc_bob", found("@irc_bob:test")),
            ("@irc_.*", "@tg_.*", SearchResult::Nothing),
            ("@irc_.*", "@.*_x:test$", found("@irc_x:test")),
            // Anchored at the start only, as the server matches.
            ("@irc_bob", "@irc_bobby.*", found("@irc_bobby:test")),
            ("@irc_bob:test", "@irc_bobby.*", SearchResult::Nothing),
            ("@irc_.*:elsewhere", "@irc_.*", SearchResult::Nothing),
            ("irc_.*", "@irc_.*", SearchResult::Nothing),
            ("@[a-f]+:test", "@[f-z]+:test", found("@f:test")),
            ("@a.{3}:test", "@.{3}b:test", found("@aaab:test")),
            ("@(ab)*:test$", "@a(ba)*:test$", SearchResult::Nothing),
            (r"@irc_\bx", "@irc_.*", SearchResult::Nothing),
            (r"@irc-\bx", "@irc-.*", found("@irc-x:test")),
            ("(?i)@IRC_.*", "@irc_z", found("@irc_z:test")),
            // Longer than any valid user id.
            ("@a{300}", "@.*", SearchResult::Nothing),
            ("", ".*", found("@a:test")),
        ];
        for (a, b, expected) in cases {
            assert_eq!(both(a, b), expected, "{a} and {b}");
            assert_eq!(both(b, a), expected, "{b} and {a}");
        }
    }

    #[test]
    fn a_search_that_would_not_end_gives_up() {
        assert_eq!(
            both("@.*a.{40}b:test$", "@.*b.{40}a:test$"),
            SearchResult::Undecided
        );
    }

    #[test]
    fn many_searches_end_too() {
        let mut search = Search::default();
        let hard = ["@.*a.{40}b:test$", "@.*b.{40}a:test$"];
        for _ in 0..8 {
            let verdict = search.find(USERS, &hard, |matched| matched[0] && matched[1]);
            assert_eq!(verdict, SearchResult::Undecided);
        }
        let easy = search.find(USERS, &["@a"], |matched| matched[0]);
        assert_eq!(
            easy,
            SearchResult::Undecided,
            "there is nothing left for it"
        );
    }

    #[test]
    fn patterns_that_begin_differently_are_apart() {
        let cases = [
            ("@irc_.*", "@tg_.*", true),
            ("^@irc_.*", "@irc_bob", false),
            ("@irc_.*", "@irc", false),
            ("@irc?_", "@ir_", false),
            ("@irc*_", "@ir_", false),
            ("@irc{0,2}_", "@ir_", false),
            ("@irc+_", "@ir_", true),
            ("@a|@b", "@b", false),
            ("(?i)@A", "@a", false),
            (r"@a\b", "@ab", false),
            ("@[ab]", "@b", false),
        ];
        for (a, b, expected) in cases {
            assert_eq!(are_apart(a, b), expected, "{a} and {b}");
            assert_eq!(are_apart(b, a), expected, "{b} and {a}");
        }
    }

    #[test]
    fn what_is_said_is_what_the_server_does() {
        use actors::services::{Interests, Proposals};
        let patterns = [
            "@a.*",
            "@.*b",
            "@.*b:",
            "@a?b?:test$",
            "@(a|b)_",
            "@[^a]",
            "@a_*:",
            "_",
            "@..:",
            "@b(a|_)+:t",
        ];
        let letters = ["a", "b", "_"];
        let mut ids: Vec<String> = letters.iter().map(|l| (*l).to_owned()).collect();
        for _ in 0..3 {
            let longer: Vec<String> = ids
                .iter()
                .flat_map(|id| letters.map(|l| format!("{id}{l}")))
                .collect();
            ids.extend(longer);
        }
        let claims = |pattern: &str| {
            let registration = serde_json::json!({"id": "a", "url": null, "as_token": "a", "hs_token": "a", "sender_localpart": "bot",
                "namespaces": {"users": [{"exclusive": true, "regex": pattern}]}});
            let registration = serde_json::from_value(registration).expect("a registration");
            Interests::compile("test", vec![(registration, false)], &Proposals::default())
                .expect("it compiles")
        };
        for a in patterns {
            for b in patterns {
                let (in_a, in_b) = (claims(a), claims(b));
                let meets = |id: &str| {
                    in_a.in_user(id).into_iter().next().is_some()
                        && in_b.in_user(id).into_iter().next().is_some()
                };
                match both(a, b) {
                    SearchResult::Found(id) => {
                        assert!(meets(&id) && !are_apart(a, b), "{a} and {b}: not {id}");
                    }
                    SearchResult::Nothing => {
                        let id = ids
                            .iter()
                            .map(|l| format!("@{l}:test"))
                            .find(|id| meets(id));
                        assert_eq!(id, None, "{a} and {b}");
                    }
                    SearchResult::Undecided => panic!("{a} and {b} can be decided"),
                }
            }
        }
    }
}
