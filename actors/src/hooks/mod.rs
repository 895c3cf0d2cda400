//! The hooks of proposals: functions of a proposal's folder that the actors call. A hook is pure, or it is part of a write: it runs
//! inside the write of the actor that makes a change, so that what it stores is committed together with the change or not at all.
//!
//! An actor reports a change with `ReportsChanges::changed`; [`Part`] is what a hook can do about it. What a hook does is
//! reported to the hooks of other proposals, and not to those of its own.

mod change;
mod check;
mod host;
mod owing;
mod part;
mod proposal;
mod report;
mod sync;
mod withholding;

pub use change::{Change, DeviceChange};
pub use check::{EventDraft, NewEvent};
pub(crate) use check::{is_of_proposal, set_top_level};
pub(crate) use host::Host;
pub use host::{DeviceKeys, RoomEvent, ToDeviceMessage};
pub use owing::{CheckMessage, NewMessage, OwedDraft, OwesTo};
pub use part::{AT_ONCE, Part, Stored, after_prefix};
pub use proposal::{DurableSection, Hooks, ProposalHooks};
pub(crate) use report::{Attached, ReportsChanges, with_part};
pub(crate) use sync::{AddedToRooms, Keeps, SyncAdditions};
pub use sync::{FilteredPart, KeepsEvent, SyncAsked, SyncPart};
pub(crate) use withholding::Withholding;
