//! The delivery protocol as a model: what senders, the inbox, the network, services and a device do, and what can fail.
//!
//! stateright visits every state that any order of these steps and failures reaches, and checks each promise of the README in each
//! of them. `state.rs` is what there is, `steps.rs` how it changes, next to the code that each step stands for, `promises.rs` what
//! must hold. A [`Fault`] leaves out one thing that the server or a service does; each promise is broken by one of them.
//!
//! The model is finite without a bound on failures: any number of crashes, lost requests, lost answers and repeated requests.

pub mod promises;
pub mod report;
pub mod state;
pub mod steps;

use stateright::Property;

use state::State;
use steps::Action;

/// How many messages clients send.
pub const MESSAGES: u8 = 3;

/// How many messages one transaction carries at most. Two of three, so that what is owed does not always fit.
pub const LIMIT: usize = 2;

/// One thing that is left out or done wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What a transaction carries is deleted when it is sent, without waiting for a 2xx.
    NoAcknowledgement,
    /// The body is not stored: after a crash it is composed again, under the same id.
    BodyNotStored,
    /// The counter of transaction ids is in memory: it begins anew after a crash.
    IdsInMemory,
    /// The inbox deletes acknowledged rows that another service is still owed.
    OwedRowsDeleted,
    /// The 2xx of a service that only observes counts as the device's acknowledgement.
    CopyAcknowledges,
    /// `Acknowledged` is not repeated at a start, so a crash loses it.
    NotRepeatedAtStart,
    /// A deleted device leaves its messages behind.
    DeviceLeavesRows,
    /// A transaction takes the newest items that wait instead of the oldest.
    NewestFirst,
    /// The service does not recognize the id of a transaction that it has taken.
    IdsNotRecognized,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 9] = [
        Fault::NoAcknowledgement,
        Fault::BodyNotStored,
        Fault::IdsInMemory,
        Fault::OwedRowsDeleted,
        Fault::CopyAcknowledges,
        Fault::NotRepeatedAtStart,
        Fault::DeviceLeavesRows,
        Fault::NewestFirst,
        Fault::IdsNotRecognized,
    ];

    /// The promises that it breaks, to begin with.
    pub fn breaks(self) -> &'static [&'static str] {
        match self {
            Fault::NoAcknowledgement => &[promises::ACKNOWLEDGED, promises::NOTHING_LOST],
            Fault::BodyNotStored => &[promises::SAME_BYTES],
            Fault::IdsInMemory => &[promises::NEW_IDS],
            Fault::OwedRowsDeleted => &[promises::COPIES, promises::NO_COPY_LOST],
            Fault::CopyAcknowledges => &[promises::ACKNOWLEDGED, promises::NOTHING_LOST],
            Fault::NotRepeatedAtStart => &[promises::NOTHING_KEPT],
            Fault::DeviceLeavesRows => &[promises::DEAD_STAY_DEAD],
            Fault::NewestFirst | Fault::IdsNotRecognized => &[promises::IN_ORDER],
        }
    }
}

/// In words, as in the book.
impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fault::NoAcknowledgement => "what a transaction carries is deleted when it is sent",
            Fault::BodyNotStored => "the body is composed again after a crash, under the same id",
            Fault::IdsInMemory => "the counter of transaction ids begins anew after a crash",
            Fault::OwedRowsDeleted => "the inbox deletes rows that another service is still owed",
            Fault::CopyAcknowledges => {
                "the 2xx of a service that only observes counts as the device's"
            }
            Fault::NotRepeatedAtStart => "`Acknowledged` is not repeated at a start",
            Fault::DeviceLeavesRows => "a deleted device leaves its messages behind",
            Fault::NewestFirst => "a transaction takes the newest items first",
            Fault::IdsNotRecognized => "the service does not recognize the id of a transaction",
        })
    }
}

/// The protocol: as it is built, or with one fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct Protocol {
    /// What is left out or done wrongly, if anything is.
    pub fault: Option<Fault>,
}

impl Protocol {
    /// Whether the model has this fault.
    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

impl stateright::Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(self.work(state));
        actions.extend(self.environment(state));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = self.after(state, action);
        // Work comes to an end: so whatever happened before, a state in which none is left follows once failures stop. `promises.rs`
        // says what must hold in it.
        assert!(
            !action.is_work() || next.progress() > state.progress(),
            "{action} does not get nearer to the end"
        );
        Some(next)
    }

    fn within_boundary(&self, state: &State) -> bool {
        // A service that does not recognize ids is given the same again without end.
        let given = state.far.iter().map(|far| far.given.len()).max();
        given.is_none_or(|given| given <= 2 * usize::from(MESSAGES))
    }

    fn format_action(&self, action: &Action) -> String {
        action.to_string()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::all()
    }
}
