//! The sender of one application service: one frozen transaction, one request in flight, ever.
//!
//! *Owns* `frozen_transactions` and the transaction counter of its service.
//!
//! *Asks* `sync` for ephemeral data.
//!
//! *Tells* `sync` to drop ephemeral data while its service is down. The write after the 2xx calls the owners' functions.
//!
//! *Promises* that a body is on the disk before its first attempt, that each retry is the same to the byte under the same id
//! until a 2xx, that ids never repeat, and that nothing is forgotten that was not in an acknowledged body.
//!
//! *Spec* [Pushing events](https://spec.matrix.org/v1.19/application-service-api/#pushing-events),
//! [MSC3202](https://github.com/matrix-org/matrix-spec-proposals/pull/3202),
//! [MSC4203](https://github.com/matrix-org/matrix-spec-proposals/pull/4203).

mod counts;
mod freeze;
mod messages;
pub mod rules;

use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Recipient, ResponseFuture,
    SpawnHandle, WrapFuture,
};
use bytes::Bytes;
use schema::appservices::Frozen;
use schema::interests::Service;
use serde_json::value::RawValue;

use crate::life::Life;
use crate::transport::{self, Transport};
use crate::wake::WakeSender;
use crate::{Env, Error, Refusal, Result, guarded};
use freeze::{Found, Next, Wanted};

pub use counts::SIGNED_CURVE25519;
pub use freeze::EPHEMERAL;
pub use messages::*;

/// How long key counts wait for company before they go alone; those of a device that has run out of keys do not wait.
const COUNTS_DELAY: Duration = Duration::from_millis(200);

/// How long to wait before a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What the sender is doing.
#[derive(Debug)]
enum State {
    Idle,
    Gathering,
    Sending(Arc<Frozen>),
    Acknowledging(Arc<Frozen>),
    /// The attempt failed; the timer runs.
    Waiting(Arc<Frozen>, SpawnHandle, i64),
}

/// The actor.
pub struct AppserviceSender {
    env: Env,
    service: Arc<Service>,
    transport: Transport,
    ephemeral: Option<Ephemeral>,
    state: State,
    /// A wake came while something was in flight.
    again: bool,
    paused: bool,
    /// Counts have waited long enough.
    counts_due: bool,
    counts_timer: Option<SpawnHandle>,
    failed_attempts: u32,
    last_error: Option<String>,
    acknowledged: u64,
    life: Life,
}

/// Who keeps ephemeral data.
#[derive(Clone)]
pub struct Ephemeral {
    take: Recipient<TakeEphemeral>,
    drop: Recipient<DropEphemeral>,
}

impl Ephemeral {
    /// It is kept by this actor.
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
    /// A sender for this service.
    #[must_use]
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
            state: State::Idle,
            again: false,
            paused: false,
            counts_due: false,
            counts_timer: None,
            failed_attempts: 0,
            last_error: None,
            acknowledged: 0,
            life: Life::default(),
        }
    }

    /// Look for something to send, unless something is in flight: then look again afterwards.
    fn look(&mut self, ctx: &mut Context<Self>) {
        if self.paused || self.service.registration.url.is_none() {
            return;
        }
        if !matches!(self.state, State::Idle) {
            self.again = true;
            if matches!(self.state, State::Waiting(..)) {
                self.drop_ephemeral();
            }
            return;
        }
        self.state = State::Gathering;
        self.again = false;
        let (env, service) = (self.env.clone(), Arc::clone(&self.service));
        let (ephemeral, counts_alone) =
            (self.ephemeral.clone(), std::mem::take(&mut self.counts_due));
        let busy = env.trace.busy();
        let gather = async move {
            let wanted = wanted(&env, &service, ephemeral, counts_alone).await;
            env.wake.hold(&service.id);
            let id = service.id.clone();
            let found = env
                .store
                .write_always(move |tx| freeze::next(tx, &service, wanted.clone()))
                .await;
            if found.as_ref().is_ok_and(|f| !f.held) {
                env.wake.release(&id);
            }
            drop(busy);
            found
        };
        ctx.spawn(gather.into_actor(self).map(|found, this, ctx| match found {
            Ok(found) => this.found(found, ctx),
            Err(Error::Storage(schema::Error::Stopped)) => this.paused = true,
            Err(error) => {
                tracing::error!(service = %this.service.id, %error, "gathering failed; it is tried again");
                this.state = State::Idle;
                let pause = this.env.clock.sleep(AGAIN);
                ctx.spawn(pause.into_actor(this).map(|(), this, ctx| this.look(ctx)));
            }
        }));
    }

    fn found(&mut self, found: Found, ctx: &mut Context<Self>) {
        match found.next {
            Next::Frozen(frozen) => self.send(Arc::new(frozen), ctx),
            Next::OnlyCounts | Next::Nothing => {
                self.state = State::Idle;
                if matches!(found.next, Next::OnlyCounts) {
                    self.delay_counts(ctx);
                }
                if std::mem::take(&mut self.again) {
                    self.look(ctx);
                }
            }
        }
    }

    /// Counts go alone only after a short delay: usually the message that the claim was for brings them along.
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

    /// One attempt.
    fn send(&mut self, frozen: Arc<Frozen>, ctx: &mut Context<Self>) {
        if self.paused {
            self.state = State::Idle;
            return;
        }
        let (transport, service, body) = (
            self.transport.clone(),
            Arc::clone(&self.service),
            Bytes::from(frozen.body.clone()),
        );
        let txn_id = frozen.txn_id;
        self.state = State::Sending(frozen);
        let busy = self.env.trace.busy();
        let attempt = async move {
            let answer = transport.transaction(&service, txn_id, body).await;
            (answer, busy)
        };
        ctx.spawn(attempt.into_actor(self).map(|(answer, busy), this, ctx| {
            this.record(&answer);
            let failure = match answer {
                Ok(answer) if rules::is_acknowledged(answer.status) => None,
                Ok(answer) => Some(
                    Refusal::BadStatus {
                        status: answer.status,
                        body: answer.body,
                    }
                    .to_string(),
                ),
                Err(error) => Some(error.to_string()),
            };
            match (failure, std::mem::replace(&mut this.state, State::Idle)) {
                (None, State::Sending(frozen)) => this.acknowledge(frozen, ctx),
                (Some(why), State::Sending(frozen)) => this.wait(frozen, why, ctx),
                (_, other) => this.state = other,
            }
            drop(busy);
        }));
    }

    /// Put the attempt down where a developer looks: what was sent, and what came of it.
    fn record(&self, answer: &Result<transport::Answer>) {
        let (State::Sending(frozen), true) = (&self.state, self.env.trace.is_on()) else {
            return;
        };
        let outcome = match answer {
            Ok(answer) => answer.status.to_string(),
            Err(error) => error.to_string(),
        };
        let attempt = Attempt {
            service: self.service.id.clone(),
            transaction: frozen.txn_id,
            attempt: self.failed_attempts + 1,
            at: self.env.clock.now(),
            outcome,
            body: RawValue::from_string(frozen.body.clone()).unwrap_or_default(),
        };
        self.env
            .trace
            .told("appservice_sender", "service", &attempt);
    }

    /// The service took it: one write forgets it and freezes what comes next. The write is repeated until it succeeds, the
    /// request never is.
    fn acknowledge(&mut self, frozen: Arc<Frozen>, ctx: &mut Context<Self>) {
        self.failed_attempts = 0;
        self.last_error = None;
        self.acknowledged += 1;
        self.again = false;
        self.state = State::Acknowledging(Arc::clone(&frozen));
        let (env, service, paused) = (self.env.clone(), Arc::clone(&self.service), self.paused);
        let (ephemeral, counts_alone) =
            (self.ephemeral.clone(), std::mem::take(&mut self.counts_due));
        let busy = env.trace.busy();
        let write = async move {
            let mut ephemeral = Some(ephemeral);
            loop {
                let then = if paused {
                    None
                } else {
                    Some(wanted(&env, &service, ephemeral.take().flatten(), counts_alone).await)
                };
                env.wake.hold(&service.id);
                let (service, taken) = (Arc::clone(&service), Arc::clone(&frozen));
                let id = service.id.clone();
                let found = env
                    .store
                    .write_always(move |tx| freeze::acknowledge(tx, &service, &taken, then.clone()))
                    .await;
                match found {
                    Ok(found) => {
                        if found.as_ref().is_none_or(|f| !f.held) {
                            env.wake.release(&id);
                        }
                        drop(busy);
                        return found;
                    }
                    // Closed: the next start sends the same bytes again, and the service knows their id.
                    Err(Error::Storage(schema::Error::Stopped)) => return None,
                    Err(error) => {
                        tracing::error!(service = %id, %error, "an acknowledgement could not be written; it is tried again");
                        env.clock.sleep(AGAIN).await;
                    }
                }
            }
        };
        ctx.spawn(write.into_actor(self).map(|found, this, ctx| {
            this.state = State::Idle;
            match found {
                Some(found) => this.found(found, ctx),
                None if !this.paused => this.look(ctx),
                None => {}
            }
        }));
    }

    /// Typing, receipts and presence are not kept for a service that is down.
    fn drop_ephemeral(&self) {
        if let Some(ephemeral) = &self.ephemeral {
            let service = self.service.id.clone();
            // Where the keeper has no room for a word, the next failed attempt says it again.
            let _ = ephemeral.drop.try_send(DropEphemeral { service });
        }
    }

    /// The attempt failed: the same bytes again, later.
    fn wait(&mut self, frozen: Arc<Frozen>, why: String, ctx: &mut Context<Self>) {
        self.failed_attempts += 1;
        let delay = rules::back_off(self.failed_attempts, self.service.id.as_str());
        tracing::warn!(service = %self.service.id, transaction = frozen.txn_id, attempt = self.failed_attempts, why,
            again_in = ?delay, "a transaction was not acknowledged");
        self.last_error = Some(why);
        self.drop_ephemeral();
        if self.paused {
            return;
        }
        let until = self.env.clock.now() + i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        let timer = self.env.clock.sleep(delay);
        let timer = ctx.spawn(timer.into_actor(self).map(|(), this, ctx| this.retry(ctx)));
        self.state = State::Waiting(frozen, timer, until);
    }

    fn retry(&mut self, ctx: &mut Context<Self>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Waiting(frozen, timer, _) => {
                ctx.cancel_future(timer);
                self.send(frozen, ctx);
            }
            other => self.state = other,
        }
    }

    fn view(&self) -> View {
        let (state, transaction, next_attempt_at) = match &self.state {
            _ if self.paused => ("paused", None, None),
            State::Idle => ("idle", None, None),
            State::Gathering => ("gathering", None, None),
            State::Sending(frozen) => ("sending", Some(frozen.txn_id), None),
            State::Acknowledging(frozen) => ("acknowledging", Some(frozen.txn_id), None),
            State::Waiting(frozen, _, until) => ("waiting", Some(frozen.txn_id), Some(*until)),
        };
        View {
            service: self.service.id.to_string(),
            state,
            transaction,
            failed_attempts: self.failed_attempts,
            next_attempt_at,
            last_error: self.last_error.clone(),
            acknowledged: self.acknowledged,
            observing: Observing::of(&self.service),
        }
    }
}

/// What the next transaction is made with; ephemeral data is taken now or dropped.
async fn wanted(
    env: &Env,
    service: &Service,
    ephemeral: Option<Ephemeral>,
    counts_alone: bool,
) -> Wanted {
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
    Wanted {
        now: env.clock.now(),
        hooks: env.hooks.clone(),
        dialects: env.dialects.clone(),
        ephemeral,
        counts_alone,
    }
}

impl Actor for AppserviceSender {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.life.watch(ctx, &self.env, "appservice_sender");
        // Many nudges are as good as one.
        ctx.set_mailbox_capacity(16);
        // What the last run left: a frozen body first, then whatever is owed.
        self.look(ctx);
    }
}

impl Handler<WakeSender> for AppserviceSender {
    type Result = ();

    fn handle(&mut self, _: WakeSender, ctx: &mut Context<Self>) {
        self.look(ctx);
    }
}

impl Handler<RetryNow> for AppserviceSender {
    type Result = ();

    fn handle(&mut self, _: RetryNow, ctx: &mut Context<Self>) {
        self.retry(ctx);
    }
}

impl Handler<Ping> for AppserviceSender {
    type Result = ResponseFuture<Result<Duration>>;

    fn handle(&mut self, msg: Ping, ctx: &mut Context<Self>) -> Self::Result {
        let (transport, service, me) = (
            self.transport.clone(),
            Arc::clone(&self.service),
            ctx.address(),
        );
        let clock = self.env.clock.clone();
        guarded(&self.env, "appservice_sender", async move {
            let mut body = serde_json::Map::new();
            if let Some(id) = msg.transaction_id {
                body.insert("transaction_id".to_owned(), id.into());
            }
            let body = Bytes::from(serde_json::Value::Object(body).to_string());
            let start = clock.now();
            let answer = transport.ping(&service, body).await?;
            if !rules::is_acknowledged(answer.status) {
                return Err(Refusal::BadStatus {
                    status: answer.status,
                    body: answer.body,
                }
                .into());
            }
            let _ = me.try_send(RetryNow);
            Ok(Duration::from_millis(
                u64::try_from(clock.now() - start).unwrap_or(0),
            ))
        })
    }
}

impl Handler<Status> for AppserviceSender {
    type Result = Result<View>;

    fn handle(&mut self, _: Status, _: &mut Context<Self>) -> Self::Result {
        Ok(self.view())
    }
}

impl Handler<Pause> for AppserviceSender {
    type Result = ();

    fn handle(&mut self, _: Pause, ctx: &mut Context<Self>) {
        self.paused = true;
        self.drop_ephemeral();
        // An attempt in flight is settled; one that waits for its time is not made.
        if let State::Waiting(_, timer, _) = &self.state {
            ctx.cancel_future(*timer);
            self.state = State::Idle;
        }
    }
}

impl Handler<Resume> for AppserviceSender {
    type Result = ();

    fn handle(&mut self, msg: Resume, ctx: &mut Context<Self>) {
        self.service = msg.service;
        self.paused = false;
        self.failed_attempts = 0;
        self.retry(ctx);
        self.look(ctx);
    }
}
