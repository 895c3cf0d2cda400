//! Experiments of this server alone: ideas without a proposal, built like one, so that they can be tried.
//!
//! Each is off by default, and its names on the wire begin with `org.understudy.`: no other server knows them. An experiment that
//! becomes a proposal moves to [`mscs`](crate::mscs).

pub mod account_data;
mod sheet;

use actors::hooks::{Hooks, ProposalHooks};
use actors::services::Proposals;

pub use sheet::Experiment;

/// All experiments, in the order in which they add to a transaction, after the proposals.
pub static ALL: &[Experiment] = &[account_data::EXPERIMENT];

/// Switch on the experiments with these names.
///
/// # Errors
/// One line with the unknown name and the known ones.
pub fn switch_on<S: AsRef<str>>(
    names: &[S],
    hooks: &mut Hooks,
    proposals: &mut Proposals,
) -> Result<(), String> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if let Some(unknown) = names.iter().find(|n| ALL.iter().all(|e| e.name != **n)) {
        let known: Vec<&str> = ALL.iter().map(|e| e.name).collect();
        return Err(format!(
            "experiment {unknown:?} is not known; known are {}",
            known.join(", ")
        ));
    }
    let off = ALL.iter().filter(|e| !names.contains(&e.name));
    hooks.off = off.flat_map(|e| e.registration).copied().collect();
    for experiment in ALL.iter().filter(|e| names.contains(&e.name)) {
        (experiment.switches)(proposals);
        hooks.all.push(ProposalHooks {
            transaction: experiment.transaction,
            ..ProposalHooks::NONE
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_experiment_is_switched_on_by_name_once() {
        let (mut hooks, mut proposals) = (Hooks::default(), Proposals::default());
        let none: [&str; 0] = [];
        assert!(switch_on(&none, &mut hooks, &mut proposals).is_ok());
        assert!(proposals.account_data.is_none() && hooks.all.is_empty());
        let why = switch_on(&["account_data", "telepathy"], &mut hooks, &mut proposals);
        assert!(why.is_err_and(|why| why.contains("\"telepathy\" is not known")));
        assert!(proposals.account_data.is_none(), "nothing was switched on");
        let twice = ["account_data", "account_data"];
        assert!(switch_on(&twice, &mut hooks, &mut proposals).is_ok());
        assert!(proposals.account_data.is_some() && hooks.all.len() == 1);
    }

    #[test]
    fn their_names_are_private() {
        let names = ALL
            .iter()
            .flat_map(|e| e.names.iter().chain(e.registration));
        for name in names {
            assert!(name.starts_with("org.understudy."), "{name}");
        }
    }
}
