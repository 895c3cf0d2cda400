//! Deposits messages into the inbox of each addressed device, and owes copies to appservices.
//!
//! Next on the way of a to-device message: `actors/src/to_device_inbox/rules/mod.rs`.

use std::collections::BTreeSet;

use actix::{Context, Handler, ResponseFuture};
use ruma::OwnedUserId;
use schema::inbox::InboxRow;
use schema::owed::{self, Owed};
use schema::{Position, ServiceId, Tx, accounts, client_transactions, inbox};

use super::contents::Contents;
use super::hooked::ask_hooks;
use super::rules::{self, Interest};
use super::{Deposit, ToDeviceInbox};
use crate::hooks::ReportsChanges;
use crate::services::{CarriesInterests, Service};
use crate::{Result, guarded};

/// The result of a deposit, with the users and appservices to wake.
#[derive(Default)]
pub(crate) struct Deposited {
    pub(crate) position: Position,
    users: Vec<OwnedUserId>,
    pub(crate) services: BTreeSet<ServiceId>,
}

// ANCHOR: deposit
impl Handler<Deposit> for ToDeviceInbox {
    type Result = ResponseFuture<Result<Position>>;

    fn handle(&mut self, msg: Deposit, _: &mut Context<Self>) -> Self::Result {
        let env = self.env.clone();
        let now = env.clock.now();
        let write = env.store.write(move |tx| deposit(tx, &msg, now));
        guarded(&self.env, "to_device_inbox", async move {
            let done = write.await?;
            env.wake.services(&done.services, Some(done.position));
            env.wake.users(done.users);
            Ok(done.position)
        })
    }
}

pub(crate) fn deposit(tx: &mut Tx<'_>, msg: &Deposit, now: i64) -> Result<Deposited> {
    rules::check_names(&msg.event_type, msg.txn.as_str())?;
    rules::check_contents(&msg.messages)?;
    let named = msg.messages.values().map(|targets| targets.len()).sum();
    rules::check_recipients(named)?;
    let (sender, scope) = (
        msg.from.transaction_sender(),
        format!("sendToDevice/{}", msg.event_type),
    );
    if client_transactions::stored_response(tx, &sender, &scope, msg.txn.as_str())?.is_some() {
        return Ok(Deposited {
            position: tx.head(),
            ..Deposited::default()
        });
    }
    let users: Vec<&str> = msg.messages.keys().map(|u| u.as_str()).collect();
    let devices = accounts::devices_of(tx.without_deferred(), &users)?;
    let interests = tx.interests();

    let mut deliveries = rules::fan_out(&msg.messages, &devices, &interests);
    rules::check_recipients(deliveries.len())?;
    ask_hooks(tx, msg, &interests, &mut deliveries)?;
    let mut contents = Contents::of(&deliveries);
    let (mut rows, mut owing) = (Vec::new(), Vec::new());
    for delivery in deliveries {
        let position = tx.next_position();
        let (content, shared) = contents.store(tx, delivery.content, position.0)?;
        rows.push(InboxRow {
            position: position.0,
            user_id: delivery.to.device.user_id.clone(),
            device_id: delivery.to.device.device_id.clone(),
            sender: msg.from.user.to_string(),
            kind: msg.event_type.clone(),
            content,
            shared,
            decided_by: rules::decided_by(&delivery.copies),
            acknowledged: false,
        });
        for (service, interest) in &delivery.copies {
            if let Some(service) = interests.service(service) {
                owing.push(copy(service, position, *interest));
            }
        }
    }
    let services = owing
        .iter()
        .map(|row| ServiceId::from(row.appservice_id.as_str()))
        .collect();
    tx.sent(&msg.from, &msg.event_type, &rows)?;
    inbox::append(tx, rows);
    owed::owe_all(tx, owing);
    client_transactions::remember(tx, &sender, &scope, msg.txn.as_str(), "{}", now);
    Ok(Deposited {
        position: tx.head(),
        users: msg.messages.keys().cloned().collect(),
        services,
    })
}
// ANCHOR_END: deposit

/// The copy of the message at this position that an appservice is owed, with the rule that grants it.
fn copy(service: &Service, message: Position, interest: Interest) -> Owed {
    Owed {
        why: interest.rule().to_owned(),
        ..service.owed(message, interest.owed_as())
    }
}
