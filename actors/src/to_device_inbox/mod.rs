//! The to-device inbox: one row for each message and device.
//!
//! *Owns* `inbox`, `shared_contents`; shares `client_transactions`. Owes messages to services in `owed`.
//!
//! *Asks* nobody.
//!
//! *Tells* [`Wake`](crate::runtime::wake::Wake): the senders of services that are owed a message, and the `/sync` requests that wait.
//!
//! *Promises* that an answered message is on the disk, once; that nothing leaves before it is acknowledged: by `since`
//! for a device, by [`Acknowledged`], which follows a 2xx, for the service that decides over the device.
//!
//! *Spec* [Send-to-Device messaging](https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging),
//! [MSC4203](https://github.com/matrix-org/matrix-spec-proposals/pull/4203).

mod contents;
mod messages;
pub mod queries;
pub mod rules;

use std::collections::BTreeSet;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, ResponseFuture, WrapFuture};
use ruma::OwnedUserId;
use schema::ServiceId;
use schema::inbox::InboxRow;
use schema::interests::Service;
use schema::owed::{self, Owed};
use schema::{Position, Tx, accounts, appservices, inbox};

use crate::runtime::life::Life;
use crate::{Env, Error, Result, guarded};

use contents::Contents;
use rules::Interest;

pub use messages::*;

/// How long to wait before a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

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
        // What was acknowledged before the last end, and perhaps not said to this actor.
        let (env, busy) = (self.env.clone(), self.env.trace.busy());
        let rows = async move { env.store.read(appservices::all).await };
        ctx.spawn(rows.into_actor(self).map(|rows, _, ctx| {
            for row in rows.unwrap_or_default() {
                ctx.notify(Acknowledged {
                    service: row.appservice_id.into(),
                    txn: None,
                    from: Position::START,
                    up_to: Position(row.acknowledged),
                });
            }
            drop(busy);
        }));
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
            env.wake.services(&done.services, Some(done.position));
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
    let devices = accounts::devices_of(tx.beside(), &users)?;
    let interests = tx.interests();

    let deliveries = rules::fan_out(&msg.messages, &devices, &interests);
    rules::check_recipients(deliveries.len())?;
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
    inbox::append(tx, rows);
    owed::owe_all(tx, owing);
    inbox::remember(tx, &sender, &scope, msg.txn.as_str(), "{}", now);
    Ok(Deposited {
        position: tx.head(),
        users: msg.messages.keys().cloned().collect(),
        services,
    })
}
// ANCHOR_END: deposit

/// What a service is owed of the message at this position, with the rule by which it is.
pub(crate) fn copy(service: &Service, message: Position, interest: Interest) -> Owed {
    Owed {
        why: interest.rule().to_owned(),
        ..Owed::new(service, message, interest.owed_as())
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

// ANCHOR: acknowledged
impl Handler<Acknowledged> for ToDeviceInbox {
    type Result = ();

    /// The sender's own write has recorded the 2xx, so nothing between these positions is ever sent to the service again: the rows can go.
    fn handle(&mut self, msg: Acknowledged, ctx: &mut Context<Self>) {
        let (env, busy) = (self.env.clone(), self.env.trace.busy());
        let empty = async move {
            loop {
                let (service, from, up_to) = (msg.service.clone(), msg.from, msg.up_to);
                // These rows are dead: their deletion is not worth a commit of its own.
                let write = env.store.write_later(move |tx| {
                    Ok::<_, Error>(inbox::acknowledge_service(tx, &service, from, up_to)?)
                });
                match write.await {
                    Ok(()) | Err(Error::Storage(schema::Error::Stopped)) => break,
                    Err(error) => {
                        tracing::error!(service = %msg.service, %error, "an inbox could not be emptied; it is tried again");
                        let _waiting = env.trace.parked();
                        env.clock.sleep(AGAIN).await;
                    }
                }
            }
            drop(busy);
        };
        ctx.spawn(empty.into_actor(self));
    }
}
// ANCHOR_END: acknowledged
