//! The patterns of one kind of namespace, of all services, in one set.

use regex::{RegexSet, RegexSetBuilder};

use crate::services::claim::Claim;
use crate::services::registration::Namespace;

/// What the compiled patterns may take, in bytes; a set that needs more is refused.
const PROGRAM: usize = 64 << 20;

/// What each thread that matches may keep of the automaton that it builds while it goes, in bytes.
///
/// It takes what it needs: some KiB for a few services, nearly 5 MiB for a thousand with patterns like `@irc_.*:example\.org`.
/// The crate's own limit of 2 MiB makes exactly those start over and over again: 54 µs a user instead of 0.6.
const AUTOMATON: usize = 32 << 20;

// ANCHOR: patterns
/// One kind of pattern of all services, in one set.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    set: RegexSet,
    /// For each pattern: whose it is (an index into the services), and what it claims.
    of: Vec<(u32, Claim)>,
}

impl Patterns {
    /// Compile the lists of all services, each under its index.
    pub(super) fn compile<'a>(
        all: impl Iterator<Item = (u32, &'a [Namespace])>,
    ) -> Result<Patterns, String> {
        let (mut texts, mut of) = (Vec::new(), Vec::new());
        for (service, list) in all {
            for namespace in list {
                texts.push(anchored(&namespace.regex));
                let claim = if namespace.exclusive {
                    Claim::Exclusive
                } else {
                    Claim::Shared
                };
                of.push((service, claim));
            }
        }
        let set = RegexSetBuilder::new(&texts)
            .size_limit(PROGRAM)
            .dfa_size_limit(AUTOMATON)
            .build()
            .map_err(|e| e.to_string().replace('\n', " "))?;
        Ok(Patterns { set, of })
    }

    /// Each service with a matching pattern, by index, ascending; the first of its patterns that matches says how it claims. One
    /// pass over the id, whatever the number of patterns.
    pub(super) fn matches(&self, id: &str) -> impl Iterator<Item = (u32, Claim)> {
        // Without patterns there is nothing to allocate either.
        let matched = (!self.of.is_empty()).then(|| self.set.matches(id));
        let mut last = None;
        matched.into_iter().flatten().filter_map(move |pattern| {
            let (service, claim) = self.of[pattern];
            (last.replace(service) != Some(service)).then_some((service, claim))
        })
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

/// A pattern as it is compiled: registrations are written for engines that match at the start of the id and do not ask for its end.
#[must_use]
pub fn anchored(regex: &str) -> String {
    format!("^(?:{regex})")
}
// ANCHOR_END: patterns

/// Check one pattern as it will be compiled.
///
/// # Errors
/// A sentence that says what the pattern gets wrong.
pub fn check_pattern(regex: &str) -> Result<(), String> {
    regex::Regex::new(&anchored(regex))
        .map(drop)
        .map_err(|e| e.to_string().replace('\n', " "))
}
