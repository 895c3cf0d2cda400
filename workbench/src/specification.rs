//! The clauses of the specification that scenarios, tests and the code name by id: the list is `spec-notes/clauses.toml`.

use std::sync::LazyLock;

use serde::Deserialize;

/// A section of the specification, or a proposal, with the clauses that apply to a homeserver.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// What the clauses are about.
    pub title: String,
    /// The address of the section or the proposal; absent for what understudy promises beyond them.
    pub source: Option<String>,
    /// The chapter of the book that explains it.
    pub chapter: String,
    /// The clauses, in the order of the list.
    pub clauses: Vec<Clause>,
}

/// A clause, written as a list of three texts.
#[derive(Debug, Deserialize)]
pub struct Clause(
    /// Its id, such as `as.txn.retry`.
    pub String,
    /// Its level.
    pub Level,
    /// What it asks of a homeserver, in one sentence.
    pub String,
);

/// How strictly a clause asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It is required, or stated as a fact about a homeserver.
    Must,
    /// It is recommended.
    Should,
    /// It is allowed.
    May,
    /// It is a promise of understudy alone.
    Own,
}

/// The list.
#[must_use]
pub fn sections() -> &'static [Section] {
    #[derive(Deserialize)]
    struct List {
        section: Vec<Section>,
    }
    static LIST: LazyLock<List> = LazyLock::new(|| {
        toml::from_str(include_str!("../../spec-notes/clauses.toml"))
            .expect("the list is part of the program, and a test reads it")
    });
    &LIST.section
}

/// The clause with this id, and its section.
#[must_use]
pub fn clause(id: &str) -> Option<(&'static Section, &'static Clause)> {
    let of = |section: &'static Section| {
        let found = section.clauses.iter().find(|clause| clause.0 == id);
        found.map(|clause| (section, clause))
    };
    sections().iter().find_map(of)
}
