//! The to-device inbox: one row per message and device, one copy per interested application service.
//!
//! *Owns* `inbox`, `to_device_copies`, `shared_contents`; shares `client_transactions`.
//!
//! *Asks* nobody.
//!
//! *Tells* [`Wake`](crate::wake::Wake): the senders of services with a copy, and who waits in `/sync`.
//!
//! *Promises* that an answered message is on the disk, once; that nothing leaves before it is acknowledged: by `since`
//! for a device, by a 2xx for a service with authority over it.
//!
//! *Spec* [Send-to-Device messaging](https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging),
//! [MSC4203](https://github.com/matrix-org/matrix-spec-proposals/pull/4203).

mod contents;
mod messages;
pub mod queries;
pub mod rules;

use std::collections::BTreeSet;

use actix::{Actor, Context, Handler, ResponseFuture};
use ruma::OwnedUserId;
use schema::inbox::{CopyRow, InboxRow};
use schema::registration::ServiceId;
use schema::{Position, Tx, accounts, inbox};

use crate::life::Life;
use crate::{Env, Result, guarded};

use contents::Contents;
use rules::Interest;

pub use messages::*;

/// The actor.
pub struct ToDeviceInbox {
    env: Env,
    life: Life,
}

impl ToDeviceInbox {
    /// An inbox over this storage.
    #[must_use]
    pub fn new(env: Env) -> ToDeviceInbox {
        ToDeviceInbox {
            env,
            life: Life::default(),
        }
    }
}

impl Actor for ToDeviceInbox {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.life.watch(ctx, &self.env, "to_device_inbox");
        ctx.set_mailbox_capacity(4096);
    }
}

/// What a deposit did, for those to be woken.
struct Deposited {
    position: Position,
    users: Vec<OwnedUserId>,
    services: BTreeSet<ServiceId>,
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
            env.wake.services(&done.services);
            env.wake.users(done.users);
            Ok(done.position)
        })
    }
}

fn deposit(tx: &mut Tx<'_>, msg: &Deposit, now: i64) -> Result<Deposited> {
    rules::check_names(&msg.event_type, msg.txn.as_str())?;
    rules::check_contents(&msg.messages)?;
    let named = msg.messages.values().map(|targets| targets.len()).sum();
    rules::check_recipients(named)?;
    let (sender, scope) = (
        msg.from.transaction_sender(),
        format!("sendToDevice/{}", msg.event_type),
    );
    if inbox::answered(tx, &sender, &scope, msg.txn.as_str())?.is_some() {
        return Ok(Deposited {
            position: tx.head(),
            users: Vec::new(),
            services: BTreeSet::new(),
        });
    }
    let users: Vec<&str> = msg.messages.keys().map(|u| u.as_str()).collect();
    let devices = accounts::devices_of(tx, &users)?;
    let interests = tx.interests();

    let deliveries = rules::fan_out(&msg.messages, &devices, &interests);
    rules::check_recipients(deliveries.len())?;
    let mut contents = Contents::of(&deliveries);
    let (mut rows, mut copies) = (Vec::new(), Vec::new());
    for delivery in deliveries {
        let position = tx.next_position().0;
        let (content, shared) = contents.store(tx, delivery.content, position)?;
        let row = InboxRow {
            position,
            user_id: delivery.to.device.user_id.clone(),
            device_id: delivery.to.device.device_id.clone(),
            sender: msg.from.user.to_string(),
            kind: msg.event_type.clone(),
            content,
            shared,
        };
        copies.extend(
            delivery
                .copies
                .into_iter()
                .map(|(service, interest)| copy(&row, &service, interest)),
        );
        rows.push(row);
    }
    inbox::append(tx, &rows, &copies)?;
    inbox::remember(tx, &sender, &scope, msg.txn.as_str(), "{}", now)?;
    Ok(Deposited {
        position: tx.head(),
        users: msg.messages.keys().cloned().collect(),
        services: copies
            .iter()
            .map(|c| ServiceId::from(c.appservice_id.as_str()))
            .collect(),
    })
}
// ANCHOR_END: deposit

/// A service's copy of a message, with all it needs to be sent and the rule by which it is made.
pub(crate) fn copy(row: &InboxRow, service: &ServiceId, interest: Interest) -> CopyRow {
    CopyRow {
        appservice_id: service.to_string(),
        position: row.position,
        explicit: matches!(interest, Interest::Explicit(_)),
        user_id: row.user_id.clone(),
        device_id: row.device_id.clone(),
        sender: row.sender.clone(),
        kind: row.kind.clone(),
        content: row.content.clone(),
        txn: None,
        why: interest.rule().to_owned(),
        shared: row.shared,
    }
}

impl Handler<Acknowledge> for ToDeviceInbox {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: Acknowledge, _: &mut Context<Self>) -> Self::Result {
        let write = self.env.store.write(move |tx| {
            // A token above the head was never handed out: it acknowledges nothing.
            if msg.up_to <= tx.head() {
                inbox::acknowledge_device(tx, msg.user.as_str(), msg.device.as_str(), msg.up_to)?;
            }
            Ok(())
        });
        guarded(&self.env, "to_device_inbox", write)
    }
}

impl Handler<DeviceGone> for ToDeviceInbox {
    type Result = ();

    /// The rows went in the write that deleted the device; nothing is remembered here that would have to go too.
    fn handle(&mut self, msg: DeviceGone, _: &mut Context<Self>) {
        tracing::debug!(user = %msg.user, device = %msg.device, "a device is gone, and what waited for it");
    }
}
