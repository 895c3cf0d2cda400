//! Proposals (MSCs): a folder for each, with a data sheet; switched on at run time.

pub mod msc3202;
pub mod msc3983;
pub mod msc3984;
pub mod msc4203;
pub mod msc4350;
mod sheet;

use actors::key_proxy::Proxies;
use actors::services::Proposals;
use actors::wire::{Hooks, Naming};

pub use sheet::Msc;

/// All proposals, in the order in which they add to a transaction.
pub static ALL: &[Msc] = &[
    msc4203::MSC,
    msc3202::MSC,
    msc3983::MSC,
    msc3984::MSC,
    msc4350::MSC,
];

/// The proposals with these numbers; unknown numbers are skipped.
pub fn among(numbers: &[u16]) -> impl Iterator<Item = &'static Msc> {
    ALL.iter().filter(|m| numbers.contains(&m.number))
}

/// The numbers of the proposals that are on by default.
#[must_use]
pub fn by_default() -> Vec<u16> {
    let on = ALL.iter().filter(|m| m.by_default);
    on.map(|m| m.number).collect()
}

/// The proposals with these numbers.
///
/// # Errors
/// The first number that is not in [`ALL`].
pub fn enabled(numbers: &[u16]) -> Result<Vec<&'static Msc>, u16> {
    if let Some(unknown) = numbers.iter().find(|n| ALL.iter().all(|m| m.number != **n)) {
        return Err(*unknown);
    }
    Ok(among(numbers).collect())
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

/// What the actors need from these proposals: functions to call, and which kinds of data are switched on.
#[must_use]
pub fn hooks(mscs: &[&'static Msc], naming: Naming) -> (Hooks, Proposals) {
    let mut proposals = Proposals::default();
    for msc in mscs {
        (msc.switches)(&mut proposals);
    }
    (
        Hooks {
            naming,
            transaction: mscs.iter().map(|m| m.transaction).collect(),
            device_signer: mscs.iter().filter_map(|m| m.device_signer).collect(),
            ..Hooks::default()
        },
        proposals,
    )
}

/// The functions of these proposals for appservices that store keys themselves: the first that handles claims, and the first that
/// handles queries.
#[must_use]
pub fn key_proxies(numbers: &[u16]) -> Proxies {
    Proxies {
        claim: among(numbers).find_map(|msc| msc.claim_proxy),
        query: among(numbers).find_map(|msc| msc.query_proxy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_number_is_an_error() {
        assert_eq!(enabled(&[3202, 1]).err(), Some(1));
        assert_eq!(enabled(&[3202]).map(|m| m.len()), Ok(1));
    }

    #[test]
    fn names_are_those_that_bridges_read() {
        let names: Vec<_> = ALL
            .iter()
            .flat_map(|m| m.names)
            .map(|n| (n.unstable, n.stable))
            .collect();
        let expected = [
            ("de.sorunome.msc2409.to_device", "to_device"),
            ("org.matrix.msc3202.device_lists", "device_lists"),
            (
                "org.matrix.msc3202.device_one_time_keys_count",
                "device_one_time_keys_count",
            ),
            (
                "org.matrix.msc3202.device_unused_fallback_key_types",
                "device_unused_fallback_key_types",
            ),
            ("fi.mau.msc4350.impersonator", "impersonator"),
        ];
        assert_eq!(names, expected);
    }
}
