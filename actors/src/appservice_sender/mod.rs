//! The sender of one application service. It has one frozen transaction and one request in flight at most.
//!
//! *Owns* `owed`, `frozen_transactions` and the transaction counter of its appservice.
//!
//! *Asks* `sync` for ephemeral data.
//!
//! *Tells* `to_device_inbox` [`Acknowledged`](crate::runtime::wake::Acknowledged), after the write that records a 2xx, and `sync`
//! to drop ephemeral data while its appservice does not answer.
//!
//! *Promises* that a body is committed before its first attempt; that each retry has the same bytes and the same id until a
//! 2xx; that ids are never used twice; that an owed item is deleted only after a transaction with it was acknowledged.
//!
//! *Spec* [Pushing events](https://spec.matrix.org/v1.19/application-service-api/#pushing-events),
//! [MSC3202](https://github.com/matrix-org/matrix-spec-proposals/pull/3202),
//! [MSC4203](https://github.com/matrix-org/matrix-spec-proposals/pull/4203).
//!
//! Next on the way of a to-device message: `actors/src/appservice_sender/freeze.rs`.

mod acknowledge;
mod attempt;
mod counts;
mod freeze;
mod gather;
mod messages;
mod ping;
mod queries;
mod resend;
pub mod rules;
mod send;

use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Recipient, SpawnHandle, WrapFuture,
};
use schema::Position;
use schema::transactions::Frozen;

use crate::runtime::requests;
use crate::runtime::wake::WakeSender;
use crate::runtime::watchdog::Watchdog;
use crate::services::Service;
use crate::transport::Transport;
use crate::{Env, Error};
use freeze::{Found, HeldBy, Next, Parameters};

pub use counts::SIGNED_CURVE25519;
pub use freeze::EPHEMERAL;
pub use messages::*;

/// How long key counts wait to be sent with other items. Those of a device without unclaimed keys do not wait.
const COUNTS_DELAY: Duration = Duration::from_millis(200);

/// Higher than every position. It stands for an announced item that has no position.
const NO_POSITION: Position = Position(i64::MAX);

/// The delay before a failed write is repeated.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The state of the sender.
#[derive(Debug)]
enum SenderState {
    /// No look and no transaction is under way.
    Idle,
    /// The write that looks for something to send is under way.
    Gathering,
    /// The request with this frozen transaction is under way.
    Sending(Arc<Frozen>),
    /// The answer was a 2xx. The write that records the acknowledgement and freezes the next transaction is under way.
    Acknowledging(Arc<Frozen>),
    /// The last attempt failed. The next attempt waits for a timer, which fires at this time.
    Waiting(Arc<Frozen>, SpawnHandle, i64),
}

/// The actor. Clause: as.txn.independent
pub struct AppserviceSender {
    env: Env,
    service: Arc<Service>,
    transport: Transport,
    ephemeral: Option<Ephemeral>,
    state: SenderState,
    /// The position up to which items were announced while the sender was busy.
    hinted: Position,
    /// Whether more items wait for the appservice than the transaction in flight carries.
    more: bool,
    /// The position up to which the sender looked last.
    looked: Position,
    /// What held back the items above that position, if the last look found nothing else to send.
    held: Option<HeldBy>,
    paused: bool,
    /// Whether key counts have waited long enough for other items.
    counts_due: bool,
    counts_timer: Option<SpawnHandle>,
    failed_attempts: u32,
    last_error: Option<String>,
    acknowledged: u64,
    watchdog: Watchdog,
    gathered: u64,
    /// The number of pings under way.
    pings: usize,
    /// Whether the next look is the first since the start or since the registration changed.
    is_first: bool,
}

/// The addresses of the actor that keeps ephemeral data.
#[derive(Clone)]
pub struct Ephemeral {
    take: Recipient<TakeEphemeral>,
    drop: Recipient<DropEphemeral>,
}

impl Ephemeral {
    /// The addresses of this actor.
    pub fn kept_by<A>(keeper: &Addr<A>) -> Ephemeral
    where
        A: Actor + Handler<TakeEphemeral> + Handler<DropEphemeral>,
        A::Context: ToEnvelope<A, TakeEphemeral> + ToEnvelope<A, DropEphemeral>,
    {
        Ephemeral {
            take: keeper.clone().recipient(),
            drop: keeper.clone().recipient(),
        }
    }
}

impl AppserviceSender {
    /// A sender for this appservice.
    pub fn new(
        env: Env,
        service: Arc<Service>,
        transport: Transport,
        ephemeral: Option<Ephemeral>,
    ) -> AppserviceSender {
        AppserviceSender {
            env,
            service,
            transport,
            ephemeral,
            state: SenderState::Idle,
            hinted: Position::START,
            more: false,
            looked: Position::START,
            held: None,
            paused: false,
            counts_due: false,
            counts_timer: None,
            failed_attempts: 0,
            last_error: None,
            acknowledged: 0,
            watchdog: Watchdog::default(),
            gathered: 0,
            pings: 0,
            is_first: true,
        }
    }

    /// Look for something to send. If the sender is busy, `hinted` keeps the position: `found` looks again after a look that found
    /// nothing, and after a 2xx the write that records it also looks (`acknowledge.rs`).
    fn look(&mut self, ctx: &mut Context<Self>) {
        self.look_up_to(None, ctx);
    }

    /// The same, for items up to a position; `None` for those without a position.
    fn look_up_to(&mut self, up_to: Option<Position>, ctx: &mut Context<Self>) {
        if self.paused || self.service.registration.url.is_none() {
            return;
        }
        if !matches!(self.state, SenderState::Idle) {
            if self.hinted == Position::START && matches!(self.state, SenderState::Acknowledging(_))
            {
                // The write that records the 2xx may be waiting for another commit (`write_later`). Now an item waits for that
                // write.
                self.env.store.hurry();
            }
            self.hinted = self.hinted.max(up_to.unwrap_or(NO_POSITION));
            if matches!(self.state, SenderState::Waiting(..)) {
                self.drop_ephemeral();
            }
            return;
        }
        self.state = SenderState::Gathering;
        self.hinted = Position::START;
        self.held = None;
        self.gathered += 1;
        let is_first = std::mem::take(&mut self.is_first);
        let (env, service) = (self.env.clone(), Arc::clone(&self.service));
        let (ephemeral, counts_alone) =
            (self.ephemeral.clone(), std::mem::take(&mut self.counts_due));
        let busy = env.trace.busy();
        let gather = async move {
            let mut wanted = wanted(&env, &service, ephemeral, counts_alone).await;
            wanted.is_first = is_first;
            let found = env
                .store
                .write_always(move |tx| freeze::next(tx, &service, &wanted))
                .await;
            drop(busy);
            found
        };
        ctx.spawn(gather.into_actor(self).map(move |found, this, ctx| match found {
            Ok(found) => this.found(found, ctx),
            Err(Error::Storage(schema::Error::Stopped)) => this.paused = true,
            Err(error) => {
                tracing::error!(service = %this.service.id, %error, "gathering failed; the next attempt follows");
                this.is_first |= is_first;
                this.last_error = Some(format!("gathering failed: {error}"));
                this.state = SenderState::Idle;
                let pause = this.env.clock.sleep(RETRY_AFTER);
                ctx.spawn(pause.into_actor(this).map(|(), this, ctx| this.look(ctx)));
            }
        }));
    }

    fn found(&mut self, found: Found, ctx: &mut Context<Self>) {
        self.looked = found.looked;
        // Items that were announced meanwhile have been seen if they are at or below the position of this look.
        if self.hinted <= found.looked {
            self.hinted = Position::START;
        }
        match found.next {
            Next::Frozen(frozen) => {
                self.more = frozen.cut < found.looked.0;
                requests::log_frozen(&self.service.id, &frozen);
                self.send(Arc::new(frozen), ctx);
            }
            Next::OnlyCounts | Next::Nothing => {
                self.state = SenderState::Idle;
                self.held = found.held;
                if let Some(HeldBy::Line(line)) = found.held {
                    self.env.wake.hold(&self.service.id, line);
                }
                if matches!(found.next, Next::OnlyCounts) {
                    self.delay_counts(ctx);
                }
                let hinted = std::mem::take(&mut self.hinted);
                if !self.is_seen(hinted) {
                    self.look(ctx);
                }
            }
        }
    }

    /// Whether looking for items up to this position would find nothing new: the last look reached that position, or the items
    /// above the last look are held back.
    fn is_seen(&self, up_to: Position) -> bool {
        let is_held = match self.held {
            Some(HeldBy::Line(line)) => self.env.wake.is_open(line),
            Some(HeldBy::BackFill) => true,
            None => false,
        };
        up_to <= self.looked || (is_held && up_to < NO_POSITION)
    }

    /// Counts are sent alone only after a short delay: usually the message for which a key was claimed follows soon and takes
    /// them along.
    fn delay_counts(&mut self, ctx: &mut Context<Self>) {
        if self.counts_timer.is_some() {
            return;
        }
        let delay = self.env.clock.sleep(COUNTS_DELAY);
        self.counts_timer = Some(ctx.spawn(delay.into_actor(self).map(|(), this, ctx| {
            this.counts_timer = None;
            this.counts_due = true;
            this.look(ctx);
        })));
    }

    /// Typing, receipts and presence are not kept for an appservice that does not answer.
    fn drop_ephemeral(&self) {
        if let Some(ephemeral) = &self.ephemeral {
            let service = self.service.id.clone();
            // If the mailbox is full, the next failed attempt sends this again.
            let _ = ephemeral.drop.try_send(DropEphemeral { service });
        }
    }
}

/// The parameters of the next transaction. Ephemeral data is taken now or dropped.
async fn wanted(
    env: &Env,
    service: &Service,
    ephemeral: Option<Ephemeral>,
    counts_alone: bool,
) -> Parameters {
    let ephemeral = match ephemeral {
        Some(keeper)
            if service.registration.receive_ephemeral || service.registration.push_ephemeral =>
        {
            let limit = rules::ITEMS;
            let take = TakeEphemeral {
                service: service.id.clone(),
                limit,
            };
            keeper.take.send(take).await.unwrap_or_default()
        }
        _ => Vec::new(),
    };
    Parameters {
        now: env.clock.now(),
        hooks: env.hooks.clone(),
        dialects: env.dialects.clone(),
        ephemeral,
        counts_alone,
        is_first: false,
    }
}

impl Actor for AppserviceSender {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.watchdog.watch(ctx, &self.env, "appservice_sender");
        // One waiting notification serves for many, so a small mailbox is enough.
        ctx.set_mailbox_capacity(16);
        // Continue after the last run: the frozen body first, then owed items.
        self.look(ctx);
    }
}

impl Handler<WakeSender> for AppserviceSender {
    type Result = ();

    fn handle(&mut self, msg: WakeSender, ctx: &mut Context<Self>) {
        let up_to = msg.up_to();
        let is_seen = up_to.is_some_and(|up_to| self.is_seen(up_to));
        if is_seen && matches!(self.state, SenderState::Idle) {
            return;
        }
        self.look_up_to(up_to, ctx);
    }
}

impl Handler<RetryNow> for AppserviceSender {
    type Result = ();

    fn handle(&mut self, _: RetryNow, ctx: &mut Context<Self>) {
        self.retry(ctx);
    }
}

impl Handler<Pause> for AppserviceSender {
    type Result = ();

    fn handle(&mut self, _: Pause, ctx: &mut Context<Self>) {
        self.paused = true;
        self.drop_ephemeral();
        // An attempt in flight is finished; a scheduled one is cancelled.
        if let SenderState::Waiting(_, timer, _) = &self.state {
            ctx.cancel_future(*timer);
            self.state = SenderState::Idle;
        }
    }
}

impl Handler<Resume> for AppserviceSender {
    type Result = ();

    fn handle(&mut self, msg: Resume, ctx: &mut Context<Self>) {
        self.service = msg.service;
        self.is_first = true;
        self.paused = false;
        self.failed_attempts = 0;
        self.retry(ctx);
        self.look(ctx);
    }
}
