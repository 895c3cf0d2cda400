//! The kinds of steps. A step holds what is tried, and small numbers that choose among the users, rooms and devices that exist when
//! it is played. So any part of a schedule is a schedule too, and a failing one can be shrunk by leaving out steps.

use crate::rng::Rng;

/// Every kind of step, and how often it is drawn.
pub(crate) const KINDS: [(Kind, usize); 54] = [
    (Kind::Message, 10),
    (Kind::ToDevice, 10),
    (Kind::Burst, 4),
    (Kind::UploadKeys, 4),
    (Kind::Claim, 4),
    (Kind::QueryKeys, 1),
    (Kind::CrossSign, 3),
    (Kind::SignUser, 2),
    (Kind::LogIn, 2),
    (Kind::RenameDevice, 1),
    (Kind::DeleteDevice, 2),
    (Kind::CreateRoom, 4),
    (Kind::Invite, 5),
    (Kind::Join, 7),
    (Kind::Leave, 4),
    (Kind::Kick, 2),
    (Kind::Ban, 1),
    (Kind::Knock, 2),
    (Kind::Forget, 2),
    (Kind::ForgedJoin, 2),
    (Kind::State, 4),
    (Kind::Redact, 1),
    (Kind::Typing, 3),
    (Kind::Receipt, 1),
    (Kind::Presence, 1),
    (Kind::AccountData, 1),
    (Kind::Profile, 1),
    (Kind::Deactivate, 1),
    (Kind::Ghost, 4),
    (Kind::GhostDevice, 5),
    (Kind::DeleteGhostDevice, 1),
    (Kind::Registration, 4),
    (Kind::BreakFile, 2),
    (Kind::RenameFile, 1),
    (Kind::RemoveFile, 1),
    (Kind::ReturnFile, 2),
    (Kind::Restart, 2),
    (Kind::Bridge, 6),
    (Kind::Ping, 1),
    (Kind::Advance, 4),
    (Kind::StepWall, 2),
    (Kind::Storage, 4),
    (Kind::Sync, 12),
    (Kind::Read, 5),
    (Kind::LongName, 1),
    (Kind::ReloadOften, 1),
    (Kind::Damage, 3),
    (Kind::Strangers, 1),
    (Kind::Seam, 5),
    (Kind::Crowd, 1),
    (Kind::ToMany, 3),
    (Kind::Alias, 3),
    (Kind::Provision, 3),
    (Kind::Backup, 4),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Message,
    ToDevice,
    Burst,
    UploadKeys,
    Claim,
    QueryKeys,
    CrossSign,
    SignUser,
    LogIn,
    RenameDevice,
    DeleteDevice,
    CreateRoom,
    Invite,
    Join,
    Leave,
    Kick,
    Ban,
    Knock,
    Forget,
    ForgedJoin,
    State,
    Redact,
    Typing,
    Receipt,
    Presence,
    AccountData,
    Profile,
    Deactivate,
    Ghost,
    GhostDevice,
    DeleteGhostDevice,
    Registration,
    BreakFile,
    RenameFile,
    RemoveFile,
    ReturnFile,
    Restart,
    Bridge,
    Ping,
    Advance,
    StepWall,
    Storage,
    Sync,
    Read,
    LongName,
    ReloadOften,
    Damage,
    Strangers,
    Seam,
    Crowd,
    ToMany,
    Alias,
    Provision,
    Backup,
}

/// One step: a kind, and four numbers that are taken modulo the number of candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) a: u8,
    pub(crate) b: u8,
    pub(crate) c: u8,
    pub(crate) d: u8,
}

/// A step as a line of text: its kind and its four numbers.
impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Step { kind, a, b, c, d } = self;
        write!(f, "{kind:?} {a} {b} {c} {d}")
    }
}

/// The candidate that a number of a step chooses; `None` if there is none.
pub(crate) fn chosen<T>(candidates: &[T], selector: u8) -> Option<&T> {
    candidates.get(usize::from(selector) % candidates.len().max(1))
}

impl Step {
    /// Parse a line as [`Step`] prints it.
    pub(crate) fn parse(line: &str) -> Option<Step> {
        let mut parts = line.split_whitespace();
        let name = parts.next()?;
        let kind = KINDS
            .iter()
            .map(|(kind, _)| *kind)
            .find(|kind| format!("{kind:?}") == name)?;
        let numbers: Vec<u8> = parts.map(str::parse).collect::<Result<_, _>>().ok()?;
        let [a, b, c, d] = numbers[..] else {
            return None;
        };
        Some(Step { kind, a, b, c, d })
    }
}

/// The schedule of a seed. Each seed changes the weights of the kinds: some are frequent, some excluded. So schedules differ more
/// than if all were drawn from the same distribution.
pub(crate) fn schedule(seed: u64) -> Vec<Step> {
    let mut rng = Rng::new(seed);
    let weights: Vec<(Kind, usize)> = KINDS
        .iter()
        .map(|(kind, weight)| (*kind, weight * [0, 1, 1, 4][rng.below(4)]))
        .collect();
    let total: usize = weights.iter().map(|(_, weight)| weight).sum();
    let length = 12 + rng.below(50);
    let mut steps = opening();
    steps.extend((0..length).map(|_| {
        let mut at = rng.below(total);
        let chosen = weights.iter().find(|(_, weight)| {
            let found = at < *weight;
            at = at.saturating_sub(*weight);
            found
        });
        Step {
            kind: chosen.map_or(Kind::Sync, |(kind, _)| *kind),
            a: rng.selector(),
            b: rng.selector(),
            c: rng.selector(),
            d: rng.selector(),
        }
    }));
    steps
}

/// What most schedules need: a ghost with a device, and a room.
fn opening() -> Vec<Step> {
    let step = |kind, a, b| Step {
        kind,
        a,
        b,
        c: 0,
        d: 0,
    };
    vec![
        step(Kind::Ghost, 0, 0),
        step(Kind::GhostDevice, 0, 0),
        step(Kind::CreateRoom, 0, 0),
    ]
}
