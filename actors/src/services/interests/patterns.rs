//! The patterns of one kind of namespace, of all appservices, in one set.

use regex::{RegexSet, RegexSetBuilder};

use crate::services::claim::NamespaceClaim;
use crate::services::registration::Namespace;

/// The most bytes of the compiled patterns. A larger set is refused.
const PROGRAM: usize = 64 << 20;

/// The most bytes that each matching thread keeps of the automaton, which it builds as it matches.
///
/// The automaton takes only what it needs: some KiB for a few appservices, nearly 5 MiB for a thousand with patterns like
/// `@irc_.*:example\.org`. With the regex crate's default limit of 2 MiB the latter are rebuilt again and again: 54 µs for each
/// user id instead of 0.6.
const AUTOMATON: usize = 32 << 20;

// ANCHOR: patterns
/// One kind of pattern of all appservices, in one set.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    set: RegexSet,
    /// For each pattern the index of its appservice, and the claim that it makes.
    of: Vec<(u32, NamespaceClaim)>,
}

impl Patterns {
    /// Compile the lists of all appservices, each with its index.
    pub(super) fn compile<'a>(
        all: impl Iterator<Item = (u32, &'a [Namespace])>,
    ) -> Result<Patterns, String> {
        let (mut texts, mut of) = (Vec::new(), Vec::new());
        for (service, list) in all {
            for namespace in list {
                texts.push(anchored(&namespace.regex));
                let claim = if namespace.exclusive {
                    NamespaceClaim::Exclusive
                } else {
                    NamespaceClaim::Shared
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

    /// Each appservice with a matching pattern, by index in ascending order, with the claim of the first of its patterns that
    /// matches. One pass over the id, whatever the number of patterns.
    pub(super) fn matches(&self, id: &str) -> impl Iterator<Item = (u32, NamespaceClaim)> {
        // Without patterns, allocate nothing.
        let matched = (!self.of.is_empty()).then(|| self.set.matches(id));
        let mut last = None;
        matched.into_iter().flatten().filter_map(move |pattern| {
            let (service, claim) = self.of[pattern];
            (last.replace(service) != Some(service)).then_some((service, claim))
        })
    }

    /// Whether there are no patterns.
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

/// A pattern as it is compiled: anchored at the start of the id and not at its end, as existing registrations expect.
/// Clause: as.registration.regex
pub fn anchored(regex: &str) -> String {
    format!("^(?:{regex})")
}
// ANCHOR_END: patterns

/// Check one pattern as it will be compiled.
///
/// # Errors
/// A sentence that says what is wrong with the pattern.
pub fn check_pattern(regex: &str) -> Result<(), String> {
    regex::Regex::new(&anchored(regex))
        .map(drop)
        .map_err(|e| e.to_string().replace('\n', " "))
}
