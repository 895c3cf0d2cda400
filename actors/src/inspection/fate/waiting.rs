//! Why an item that an appservice is owed has not been delivered yet.

use schema::owed::{self, Owed};
use schema::queues::{self, FrozenHead};
use schema::{Conn, Position, ServiceId, back_fill, set_aside};

use super::super::steps::{self, Step, shown};
use crate::Result;
use crate::appservice_sender::SenderStatus;
use crate::device_lists::held::held_by;
use crate::services::Interests;

/// The most rows of those set aside among which a reason is looked for.
const ASIDE: i64 = 1_000;

/// What can hold an item back.
pub(super) struct Standing {
    /// The transaction that is frozen now.
    pub(super) frozen: Option<FrozenHead>,
    /// Whether a back-fill of the appservice is under way.
    is_back_filling: bool,
    /// Whether a line of the device-list log that concerns the appservice is open below the item.
    is_held: bool,
    /// Why it was set aside.
    aside: Option<String>,
}

/// What can hold back this row.
pub(super) fn standing(
    db: &mut Conn,
    interests: &Interests,
    service: &ServiceId,
    row: &Owed,
) -> Result<Standing> {
    let line = match interests.service(service) {
        Some(service) => held_by(db, interests, service, Position(i64::MAX))?,
        None => None,
    };
    let frozen = queues::frozen(db)?.into_iter();
    let aside = set_aside::oldest(db, service, ASIDE)?.into_iter();
    Ok(Standing {
        frozen: frozen
            .into_iter()
            .find(|frozen| frozen.service == service.as_str()),
        is_back_filling: back_fill::get(db, service)?.is_some(),
        is_held: line.is_some_and(|line| line.covers.0 <= row.position),
        aside: aside
            .into_iter()
            .find(|aside| aside.position == row.position && aside.kind == row.kind)
            .map(|aside| aside.why),
    })
}

impl Standing {
    /// Why this row, which no transaction carries, waits.
    pub(super) fn steps(
        &self,
        service: &ServiceId,
        row: &Owed,
        status: Option<&SenderStatus>,
    ) -> Vec<Step> {
        if row.txn == Some(owed::ASIDE) {
            let why = self
                .aside
                .as_deref()
                .unwrap_or("the reason is not among the first");
            let says = format!(
                "It was set aside, because no transaction can be composed with it: {why}. The next start tries again."
            );
            return vec![steps::ASIDE.says(says)];
        }
        if row.txn == Some(owed::OFF) {
            let says = format!(
                "It waits until {service} opts in to this kind and the server has it switched on: items of the kind {} are not sent to it now.",
                row.kind
            );
            return vec![steps::OFF.says(says)];
        }
        if status.is_none_or(|status| status.state == "paused") {
            let says = format!(
                "No registration of {service} is in force: nothing is sent to it, and what it is owed is kept."
            );
            return vec![steps::PAUSED.says(says)];
        }
        let mut all = Vec::new();
        if let Some(FrozenHead { transaction, .. }) = &self.frozen {
            all.push(behind(service, *transaction, status));
        }
        if self.is_back_filling {
            let says = format!(
                "{service} is being sent what it missed: nothing newer goes out before all of that is owed."
            );
            all.push(steps::BACK_FILL.says(says));
        }
        if self.is_held {
            let says = "It waits for a device-list change that follows from it or from something before it, so that both arrive together.";
            all.push(steps::HELD.says(says));
        }
        if all.is_empty() {
            let says = match row.kind.as_str() {
                owed::COUNT => {
                    "Key counts wait up to 200 ms for other items. Nothing else holds it back."
                }
                _ => "Nothing holds it back: the sender is about to look.",
            };
            all.push(steps::BEHIND.says(says));
        }
        all
    }
}

/// The item waits behind this frozen transaction.
fn behind(service: &ServiceId, transaction: i64, status: Option<&SenderStatus>) -> Step {
    let waiting = status.filter(|status| status.transaction == Some(transaction));
    let state = match waiting.and_then(|status| Some((status, status.next_attempt_at?))) {
        Some((status, until)) => {
            let (failed, why) = (
                status.failed_attempts,
                status.last_error.as_deref().unwrap_or("no answer"),
            );
            let says = format!(
                "It waits behind transaction {transaction}, which backs off until {}: {failed} attempts failed, the last because {why}.",
                shown(until)
            );
            steps::BEHIND.says(says).at(Some(until))
        }
        None => {
            let says = format!(
                "It waits behind transaction {transaction}, which is being sent: {service} is sent one transaction at a time."
            );
            steps::BEHIND.says(says)
        }
    };
    state.in_transaction(transaction)
}

/// What happens next to the frozen transaction.
pub(super) fn sending(
    service: &ServiceId,
    transaction: i64,
    status: Option<&SenderStatus>,
) -> Option<Step> {
    let step = match status {
        None => steps::PAUSED.says(format!(
            "No registration of {service} is in force: transaction {transaction} is kept."
        )),
        Some(status) => match status.next_attempt_at {
            Some(until) => {
                let says = format!(
                    "Transaction {transaction} backs off until {}, then the same bytes are sent again.",
                    shown(until)
                );
                steps::ATTEMPT.says(says).at(Some(until))
            }
            None if status.state == "paused" => steps::PAUSED.says(format!(
                "The sender of {service} is paused: transaction {transaction} is kept."
            )),
            None => steps::ATTEMPT.says(format!("Transaction {transaction} is being sent.")),
        },
    };
    Some(step.in_transaction(transaction))
}
