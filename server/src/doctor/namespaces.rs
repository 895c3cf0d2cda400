//! Finds problems in the patterns of one registration, and overlaps between those of two.

use super::checks::{
    CLAIMS_EVERYBODY, Examination, LOOSE_DOT, MATCHES_NOBODY, NEVER_EXCLUSIVE, OBSERVES_EVERYBODY,
    ONLY_UNUSUAL, OVERLAP, SENDER_CLAIMED, UNDECIDED,
};
use super::search::{CHOSEN, IdSpace, POSSIBLE, Search, SearchResult, are_apart};

use actors::services::{Namespace, Registration};

/// User ids of the server with these characters in the localpart: those that users can choose, or all valid ones.
fn users<'a>(letters: &'static [u8], server: Option<&'a str>) -> IdSpace<'a> {
    IdSpace {
        sigil: b'@',
        letters,
        server,
    }
}

fn aliases(server: Option<&str>) -> IdSpace<'_> {
    IdSpace {
        sigil: b'#',
        letters: POSSIBLE,
        server,
    }
}

/// Examine each pattern by itself: which users it can match. Without a `server`, these are users of any server.
pub(super) fn examine(
    exam: &mut Examination<'_>,
    registration: &Registration,
    server: Option<&str>,
) {
    let spaces = &registration.namespaces;
    for (at, namespace) in spaces.users.iter().enumerate() {
        let label = format!("users: '{}'", namespace.regex);
        reach(exam, &label, namespace, users(CHOSEN, server));
        never_exclusive(exam, &label, &spaces.users[..=at], server);
    }
    for namespace in &spaces.aliases {
        let label = format!("aliases: '{}'", namespace.regex);
        reach(exam, &label, namespace, aliases(server));
    }
    for namespace in &spaces.rooms {
        let label = format!("rooms: '{}'", namespace.regex);
        let ids = IdSpace {
            sigil: b'!',
            letters: POSSIBLE,
            server: None,
        };
        if matching(&mut exam.search, ids, &namespace.regex) == SearchResult::Nothing {
            exam.found(MATCHES_NOBODY, format!("{label} matches no room id"));
        }
    }
    let loose = server.filter(|name| name.contains('.')).and_then(|name| {
        let mut all = spaces.users.iter().chain(&spaces.aliases);
        all.find(|n| n.regex.contains(&format!(":{name}")))
    });
    if let Some(namespace) = loose {
        exam.found(
            LOOSE_DOT,
            format!(
                "in '{}' each dot of the server's name stands for any character",
                namespace.regex
            ),
        );
    }
}

fn matching(search: &mut Search, ids: IdSpace<'_>, regex: &str) -> SearchResult {
    search.find(ids, &[regex], |matched| matched[0])
}

/// Report a pattern that matches no id or every id.
fn reach(exam: &mut Examination<'_>, label: &str, namespace: &Namespace, ids: IdSpace<'_>) {
    match matching(&mut exam.search, ids, &namespace.regex) {
        SearchResult::Undecided => {
            return exam.found(UNDECIDED, format!("{label} is too complicated to examine"));
        }
        SearchResult::Nothing => return matches_nothing(exam, label, &namespace.regex, ids),
        SearchResult::Found(_) => {}
    }
    if exam
        .search
        .find(ids, &[&namespace.regex], |matched| !matched[0])
        == SearchResult::Nothing
    {
        let what = if ids.sigil == b'@' {
            "user of this server"
        } else {
            "alias of this server"
        };
        if namespace.exclusive {
            exam.found(
                CLAIMS_EVERYBODY,
                format!("{label} claims every {what} exclusively"),
            );
        } else if ids.sigil == b'@' {
            exam.found(OBSERVES_EVERYBODY, format!("{label} matches every {what}"));
        }
    }
}

/// Report a pattern that matches no id, with the most likely mistake.
fn matches_nothing(exam: &mut Examination<'_>, label: &str, regex: &str, ids: IdSpace<'_>) {
    let all = IdSpace {
        letters: POSSIBLE,
        ..ids
    };
    if let SearchResult::Found(id) = matching(&mut exam.search, all, regex) {
        return exam.found(
            ONLY_UNUSUAL,
            format!("{label} matches only names that people cannot choose, such as {id}"),
        );
    }
    let elsewhere = IdSpace {
        server: None,
        ..all
    };
    let sigil = char::from(ids.sigil);
    let why = match (ids.server, matching(&mut exam.search, elsewhere, regex)) {
        (Some(server), SearchResult::Found(id)) => {
            format!(
                "it matches ids of other servers, such as {id}, and only those of {server} count"
            )
        }
        _ if !regex.trim_start_matches(['^', '(']).starts_with(sigil) => {
            format!("ids are matched whole, from their '{sigil}' on")
        }
        _ => "no id looks like this".to_owned(),
    };
    exam.found(MATCHES_NOBODY, format!("{label} matches nobody: {why}"));
}

/// Report the last of these patterns if its `exclusive` has no effect, because earlier patterns match the same users.
fn never_exclusive(
    exam: &mut Examination<'_>,
    label: &str,
    patterns: &[Namespace],
    server: Option<&str>,
) {
    let Some((last, before)) = patterns.split_last() else {
        return;
    };
    if !last.exclusive || before.iter().all(|n| n.exclusive) {
        return;
    }
    let ids = users(POSSIBLE, server);
    let first = exam.search.find(ids, &regexes(patterns), |matched| {
        matched[before.len()] && is_exclusive(patterns, matched)
    });
    if first == SearchResult::Nothing
        && matching(&mut exam.search, ids, &last.regex) != SearchResult::Nothing
    {
        exam.found(
            NEVER_EXCLUSIVE,
            format!("{label} is exclusive, and a pattern before it that is not matches all the same users"),
        );
    }
}

fn regexes(patterns: &[Namespace]) -> Vec<&str> {
    patterns.iter().map(|n| n.regex.as_str()).collect()
}

/// Whether a user or alias is exclusive: the first matching pattern decides.
fn is_exclusive(patterns: &[Namespace], matched: &[bool]) -> bool {
    first(matched).is_some_and(|at| patterns[at].exclusive)
}

fn first(matched: &[bool]) -> Option<usize> {
    matched.iter().position(|m| *m)
}

// ANCHOR: overlap
/// Report an overlap: a user or alias that both `registration` and `other` (from `file`) claim exclusively.
pub(super) fn compare(
    exam: &mut Examination<'_>,
    registration: &Registration,
    file: &str,
    other: &Registration,
    server: Option<&str>,
) {
    let (mine, theirs) = (&registration.namespaces, &other.namespaces);
    let kinds = [
        ("users", &mine.users, &theirs.users, users(POSSIBLE, server)),
        ("aliases", &mine.aliases, &theirs.aliases, aliases(server)),
    ];
    for (kind, mine, theirs, ids) in kinds {
        if !may_meet(mine, theirs) {
            continue;
        }
        let patterns = [regexes(mine), regexes(theirs)].concat();
        let mut clash = (0, 0);
        let verdict = exam.search.find(ids, &patterns, |matched| {
            let (of_mine, of_theirs) = matched.split_at(mine.len());
            clash = (
                first(of_mine).unwrap_or_default(),
                first(of_theirs).unwrap_or_default(),
            );
            is_exclusive(mine, of_mine) && is_exclusive(theirs, of_theirs)
        });
        match verdict {
            SearchResult::Nothing => {}
            SearchResult::Undecided => exam.found(
                UNDECIDED,
                format!("whether its {kind} meet those of {file} is too complicated to examine"),
            ),
            SearchResult::Found(id) => {
                let (mine, theirs) = (&mine[clash.0].regex, &theirs[clash.1].regex);
                exam.found(
                    OVERLAP,
                    format!(
                        "{kind}: '{mine}' and '{theirs}' of {file} both claim {id} exclusively"
                    ),
                );
            }
        }
    }
}
// ANCHOR_END: overlap

/// Whether an overlap is possible: some exclusive patterns of the two can have a common prefix. A cheap test before the search.
fn may_meet(mine: &[Namespace], theirs: &[Namespace]) -> bool {
    let exclusive = |n: &&Namespace| n.exclusive;
    let near = |a: &Namespace, b: &Namespace| !are_apart(&a.regex, &b.regex);
    mine.iter()
        .filter(exclusive)
        .any(|a| theirs.iter().filter(exclusive).any(|b| near(a, b)))
}

/// Report an appservice's sender that is in an exclusive namespace of another appservice.
pub(super) fn sender_claimed(
    exam: &mut Examination<'_>,
    (file, registration): (&str, &Registration),
    (owner_file, owner): (&str, &Registration),
    server: Option<&str>,
) {
    let spaces = &owner.namespaces.users;
    let plain = format!("@{}:", registration.sender_localpart);
    if spaces
        .iter()
        .all(|n| !n.exclusive || are_apart(&n.regex, &plain))
    {
        return;
    }
    // Escape each character by its code point, so that none has a special meaning in the pattern.
    let sender: String = registration
        .sender_localpart
        .chars()
        .map(|c| format!("\\x{{{:x}}}", u32::from(c)))
        .collect();
    let whole = format!("@{sender}:");
    let mut patterns = regexes(spaces);
    patterns.push(&whole);
    let claimed = exam
        .search
        .find(users(POSSIBLE, server), &patterns, |matched| {
            matched[spaces.len()] && is_exclusive(spaces, &matched[..spaces.len()])
        });
    if let SearchResult::Found(id) = claimed {
        exam.found(
            SENDER_CLAIMED,
            format!("{id}, the sender of {file}, is in an exclusive namespace of {owner_file}"),
        );
    }
}
