//! The protocol keeps its promises in every state that it can reach, and each promise can be broken.

use std::collections::BTreeSet;

use model::Fault;
use model::report;

#[test]
fn every_promise_holds_in_every_state_and_the_book_says_so() {
    for (path, text) in report::files(report::states()) {
        let shown = std::fs::read_to_string(&path).unwrap_or_default();
        let path = path.display();
        assert!(
            shown == text,
            "{path} is not what the model finds; run cargo run -p understudy-model --example write\n{text}"
        );
    }
}

#[test]
fn each_fault_breaks_a_promise() {
    for fault in Fault::ALL {
        for promise in fault.breaks() {
            assert!(
                report::counterexample(fault, promise).is_some(),
                "{fault}: {promise} holds"
            );
        }
    }
}

#[test]
fn each_promise_is_broken_by_a_fault() {
    let broken: BTreeSet<&str> = Fault::ALL
        .into_iter()
        .flat_map(Fault::breaks)
        .copied()
        .collect();
    let promises: BTreeSet<&str> = model::promises::NAMES.into();
    assert_eq!(broken, promises);
}
