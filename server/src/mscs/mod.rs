//! Proposals (MSCs): a folder for each, with a data sheet; switched on at run time.

pub mod msc3202;
pub mod msc3814;
pub mod msc3983;
pub mod msc3984;
pub mod msc4140;
pub mod msc4190;
pub mod msc4203;
pub mod msc4326;
pub mod msc4350;
mod part;
mod sheet;
#[cfg(test)]
pub mod template;

use std::num::ParseIntError;
use std::str::FromStr;

use actors::hooks::{Hooks, ProposalHooks};
use actors::key_proxy::Proxies;
use actors::services::Proposals;
use actors::wire::Namings;

pub use part::{forms, stored, stored_in, write};
pub use sheet::Msc;

/// All proposals, in the order in which they add to a transaction.
pub static ALL: &[Msc] = &[
    msc4203::MSC,
    msc3202::MSC,
    msc4190::MSC,
    msc4326::MSC,
    msc3983::MSC,
    msc3984::MSC,
    msc4350::MSC,
    msc4140::MSC,
    msc3814::MSC,
];

/// The numbers of the proposals that are on by default.
#[must_use]
pub fn by_default() -> Vec<u16> {
    let on = ALL.iter().filter(|m| m.by_default || m.specified.is_some());
    on.map(Msc::number).collect()
}

/// The numbers of the proposals that are on by default and that the specification does not contain.
#[must_use]
pub(crate) fn by_default_beyond_specification() -> Vec<u16> {
    let on = ALL.iter().filter(|m| m.by_default && m.specified.is_none());
    on.map(Msc::number).collect()
}

/// These numbers, with those of the proposals that the specification contains.
#[must_use]
pub fn with_specified(numbers: &[u16]) -> Vec<u16> {
    let specified = ALL.iter().filter(|m| m.specified.is_some());
    let specified = specified.map(Msc::number);
    specified.chain(numbers.iter().copied()).collect()
}

/// An entry of a list of proposals to switch on: `4203`, `+4350` or `-3202`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// This proposal, and no other that is neither named nor part of the specification.
    Only(u16),
    /// This proposal besides the default ones.
    With(u16),
    /// The default ones without this proposal.
    Without(u16),
}

impl FromStr for Choice {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Choice, ParseIntError> {
        match text.split_at_checked(1) {
            Some(("+", number)) => Ok(Choice::With(number_of(number)?)),
            Some(("-", number)) => Ok(Choice::Without(number_of(number)?)),
            _ => Ok(Choice::Only(number_of(text)?)),
        }
    }
}

/// The number of a proposal, written as `4350` or `MSC4350`.
///
/// # Errors
/// If it is no number.
pub fn number_of(text: &str) -> Result<u16, ParseIntError> {
    let is_name = text
        .get(..3)
        .is_some_and(|name| name.eq_ignore_ascii_case("msc"));
    text[if is_name { 3 } else { 0 }..].parse()
}

/// The numbers of the chosen proposals; the default ones without a choice.
///
/// # Errors
/// One line if the list has numbers with and without a sign.
pub fn chosen(choices: Option<&[Choice]>) -> Result<Vec<u16>, String> {
    let choices = choices.unwrap_or_default();
    let only = |choice: &Choice| matches!(choice, Choice::Only(_));
    if choices.iter().any(only) && !choices.iter().all(only) {
        return Err("name proposals either with + or -, or without a sign: numbers without one replace the defaults".into());
    }
    let mut numbers = match choices.iter().any(only) {
        true => with_specified(&[]),
        false => by_default(),
    };
    for choice in choices {
        match choice {
            Choice::Only(number) | Choice::With(number) => numbers.push(*number),
            Choice::Without(number) => numbers.retain(|n| n != number),
        }
    }
    Ok(numbers)
}

/// The proposals with these numbers.
///
/// # Errors
/// The first number that is not in [`ALL`].
pub fn enabled(numbers: &[u16]) -> Result<Vec<&'static Msc>, u16> {
    if let Some(unknown) = numbers
        .iter()
        .find(|n| ALL.iter().all(|m| m.number() != **n))
    {
        return Err(*unknown);
    }
    Ok(ALL
        .iter()
        .filter(|m| numbers.contains(&m.number()))
        .collect())
}

/// The registration keys of all proposals and experiments, whether switched on or not.
#[must_use]
pub fn registration_keys() -> Vec<&'static str> {
    let experiments = crate::experiments::ALL.iter().map(|e| e.registration);
    ALL.iter()
        .map(|m| m.registration)
        .chain(experiments)
        .flatten()
        .copied()
        .collect()
}

fn named(msc: &Msc, namings: &Namings) -> ProposalHooks {
    ProposalHooks {
        naming: namings.of(msc.number()),
        ..msc.hooks
    }
}

/// What the actors need from these proposals: functions to call, and which kinds of data are switched on.
#[must_use]
pub fn hooks(mscs: &[&'static Msc], namings: &Namings) -> (Hooks, Proposals) {
    let mut proposals = Proposals::default();
    for msc in mscs {
        (msc.switches)(&mut proposals);
        let kinds = msc.hooks.owes.iter().map(|durable| &durable.kind);
        proposals.kinds.extend(kinds);
    }
    let hooks = Hooks {
        all: mscs.iter().map(|msc| named(msc, namings)).collect(),
        ..Hooks::default()
    };
    (hooks, proposals)
}

/// The functions of these proposals for appservices that store keys themselves: the first that handles claims, and the first that
/// handles queries.
#[must_use]
pub fn key_proxies(proposals: &[&'static Msc]) -> Proxies {
    Proxies {
        claim: proposals.iter().find_map(|msc| msc.claim_proxy),
        query: proposals.iter().find_map(|msc| msc.query_proxy),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_unknown_number_is_an_error() {
        assert_eq!(enabled(&[3202, 1]).err(), Some(1));
        assert_eq!(enabled(&[3202]).map(|m| m.len()), Ok(1));
    }

    #[test]
    fn a_list_replaces_the_defaults_or_changes_them() {
        let chosen = |list: &str| {
            let list: Result<Vec<Choice>, _> = list.split(',').map(str::parse).collect();
            chosen(Some(&list.expect("numbers")))
        };
        assert_eq!(super::chosen(None), Ok(vec![4203, 3202, 4190, 4326]));
        assert_eq!(chosen("4350"), Ok(vec![4190, 4326, 4350]));
        let all_but_one = vec![4203, 4190, 4326, 4350];
        assert_eq!(chosen("+4350,-3202"), Ok(all_but_one));
        assert_eq!(chosen("-4190,-4326"), Ok(vec![4203, 3202]));
        assert!(chosen("+4350,3202").is_err());
        assert!("x".parse::<Choice>().is_err() && "+".parse::<Choice>().is_err());
    }

    #[test]
    fn the_template_of_a_proposal_compiles() {
        assert_eq!(template::MSC.number(), 9999);
        assert!(ALL.iter().all(|msc| msc.number() != 9999));
    }

    #[test]
    fn each_name_is_defined_once_and_unstable_until_its_proposal_is_accepted() {
        let names: Vec<_> = ALL.iter().flat_map(|m| m.names).collect();
        let mut forms = BTreeSet::new();
        for name in names {
            assert!(forms.insert(name.unstable), "{} twice", name.unstable);
            assert!(forms.insert(name.stable), "{} twice", name.stable);
            let (domain, rest) = name.unstable.split_once('.').unwrap_or_default();
            let is_domain = domain.chars().all(|c| c.is_ascii_alphabetic());
            assert!(
                is_domain && rest.contains('.'),
                "{} begins with a reversed domain",
                name.unstable
            );
        }
    }

    #[test]
    fn the_kinds_of_proposals_are_named_like_their_sections() {
        for durable in ALL.iter().flat_map(|m| m.hooks.owes) {
            assert_eq!(durable.kind.kind, durable.section.unstable);
        }
    }
}
