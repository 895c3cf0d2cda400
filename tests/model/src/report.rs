//! What the book shows of the model: the shortest way to each broken promise, and a table.

use std::path::{Path, PathBuf};

use stateright::{Checker, HasDiscoveries, Model};

use crate::state::{SERVICES, Sender, State};
use crate::steps::Action;
use crate::{Fault, Protocol};

/// The largest number of states on the way to a broken promise.
const DEEPEST: usize = 20;

/// The number of different states that the protocol can reach, as it is built.
///
/// # Panics
/// A promise does not hold, or a situation that must occur does not.
pub fn states() -> usize {
    let checker = Protocol::default().checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    checker.unique_state_count()
}

/// The shortest way to a state in which a promise is broken: each step, with the state after it. Searches one step deeper each time;
/// the same each time, because one thread searches.
pub fn counterexample(fault: Fault, promise: &'static str) -> Option<Vec<(Action, State)>> {
    let model = Protocol { fault: Some(fault) };
    let found = (2..=DEEPEST).find_map(|depth| {
        let first = HasDiscoveries::AnyOf([promise].into());
        let checker = model
            .checker()
            .threads(1)
            .finish_when(first)
            .target_max_depth(depth);
        checker.spawn_bfs().join().discovery(promise)
    });
    let (states, actions): (Vec<_>, Vec<_>) = found?.into_vec().into_iter().unzip();
    Some(
        actions
            .into_iter()
            .flatten()
            .zip(states.into_iter().skip(1))
            .collect(),
    )
}

/// What the model found, as the files of the book: path and text.
pub fn files(states: usize) -> Vec<(PathBuf, String)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = here.join("../../spec-notes/src/figures/model.md");
    vec![
        (table, table_of(states)),
        (
            here.join("traces/without-acknowledgement.txt"),
            traces(Fault::NoAcknowledgement),
        ),
    ]
}

fn table_of(states: usize) -> String {
    let mut text = "| The model | What it finds |\n|---|---|\n".to_owned();
    text += &format!(
        "| as it is built | {} states, and every promise holds in each |\n",
        thousands(states)
    );
    for fault in Fault::ALL {
        let found = fault
            .breaks()
            .iter()
            .map(|promise| match counterexample(fault, promise) {
                Some(steps) => format!("*{promise}* is broken after {} steps", steps.len()),
                None => format!("*{promise}* holds"),
            });
        text += &format!("| {fault} | {} |\n", found.collect::<Vec<_>>().join("; "));
    }
    text
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let parts: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|part| str::from_utf8(part).ok())
        .collect();
    parts.join(",")
}

fn traces(fault: Fault) -> String {
    let of = |promise: &&'static str| {
        let steps = counterexample(fault, promise).unwrap_or_default();
        let lines = (1..)
            .zip(&steps)
            .map(|(number, (action, after))| format!("{number:3}. {}\n", line(*action, after)));
        let end = steps
            .last()
            .map(|(_, after)| end(after))
            .unwrap_or_default();
        format!("broken: {promise}\n{}{end}", lines.collect::<String>())
    };
    fault.breaks().iter().map(of).collect::<Vec<_>>().join("\n")
}

/// A step, with what it brought about.
fn line(action: Action, after: &State) -> String {
    let Action::Look(service) = action else {
        return action.to_string();
    };
    match after.process.senders[service as usize] {
        Sender::Ready(txn) => format!(
            "the sender of {service} has frozen transaction {} with {}",
            txn.id, txn.items
        ),
        _ => format!("{action} and finds nothing"),
    }
}

/// The state at the end.
fn end(state: &State) -> String {
    let database = &state.database;
    let mut text = format!(
        "     the inbox holds {}, for copies {}\n",
        database.inbox, database.for_services
    );
    for service in SERVICES {
        let given = &state.far[service as usize].given;
        text += &format!(
            "     {service} is owed {} and was given {given:?}\n",
            state.owed(service)
        );
    }
    text += &format!("     the phone has received {}\n", state.phone.received);
    text
}
