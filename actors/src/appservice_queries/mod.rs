//! Questions to application services outside transactions: does this user exist, whose is this alias, who is that on IRC?
//!
//! *Owns* no tables; in memory the questions under way and what was answered lately.
//!
//! *Asks* nobody. It is asked by the route before its own ask: no owner ever waits for a service, since the service calls back.
//!
//! *Tells* nobody.
//!
//! *Promises* that who asks the same at the same time waits for one request; that a service is asked [`rules::UNDER_WAY`] things
//! at once and no more; that every question is answered within [`rules::PATIENCE`]; that what a service does not know, or fails
//! to say, is not asked again at once.
//!
//! *Spec* [Querying](https://spec.matrix.org/v1.19/application-service-api/#querying),
//! [Third-party networks](https://spec.matrix.org/v1.19/application-service-api/#third-party-networks).

mod memory;
mod messages;
mod provision;
pub mod queries;
pub mod rules;
pub mod third_party;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use schema::ServiceId;
use tokio::sync::oneshot;

use crate::runtime::life::Life;
use crate::runtime::trace::Busy;
use crate::services::{CarriesInterests, Interests, Service};
use crate::transport::Transport;
use crate::{Address, Env, Result, ask_as};
use memory::{Asked, Memory};

pub use messages::*;
pub use provision::provision;

/// The actor.
pub struct AppserviceQueries {
    env: Env,
    transport: Transport,
    memory: Memory,
    /// Who waits for the answer to a question that others may join.
    joined: BTreeMap<Asked, Vec<oneshot::Sender<Told>>>,
    /// How many requests to each service are under way; those with none are not here.
    under_way: BTreeMap<ServiceId, usize>,
    life: Life,
}

/// Ask a service something and wait for its answer, on behalf of a request.
///
/// # Errors
/// When the actor is gone. That the service does not answer is an [`Answer`].
pub async fn put(
    queries: &Address<AppserviceQueries>,
    service: &ServiceId,
    question: Question,
) -> Result<Answer> {
    put_as("http", queries, service, question).await
}

/// The same on behalf of an actor.
///
/// # Errors
/// As for [`put`].
pub async fn put_as(
    from: &'static str,
    queries: &Address<AppserviceQueries>,
    service: &ServiceId,
    question: Question,
) -> Result<Answer> {
    let service = service.clone();
    let pending = ask_as(from, queries, Ask { service, question }).await?;
    Ok(pending.answer().await)
}

/// Wait for the questions of one request until all are answered or [`rules::PATIENCE`] is over: several at once to each service,
/// so that one that hangs keeps the request from asking no other. What is still under way then is remembered for whoever asks
/// next.
async fn patiently<T, W: Future<Output = Result<T>>>(
    env: &Env,
    waits: impl Iterator<Item = (ServiceId, W)>,
    mut answered: impl FnMut(T),
) -> Result<()> {
    let mut by_service: BTreeMap<ServiceId, Vec<W>> = BTreeMap::new();
    for (service, wait) in waits {
        by_service.entry(service).or_default().push(wait);
    }
    let lanes = by_service.into_values();
    let lanes = lanes.map(|lane| Box::pin(stream::iter(lane).buffer_unordered(rules::AT_ONCE)));
    let mut lanes = stream::select_all(lanes);
    let too_late = env.clock.sleep(rules::PATIENCE);
    let all = async {
        while let Some(answer) = lanes.next().await {
            answered(answer?);
        }
        Ok(())
    };
    tokio::select! {
        // In this order: the questions under way end at the same time, and what they make room for must not be asked any more.
        biased;
        () = too_late => Ok(()),
        done = all => done,
    }
}

impl AppserviceQueries {
    /// Nothing is known, nothing is under way.
    #[must_use]
    pub fn new(env: Env, transport: Transport) -> AppserviceQueries {
        AppserviceQueries {
            env,
            transport,
            memory: Memory::default(),
            joined: BTreeMap::new(),
            under_way: BTreeMap::new(),
            life: Life::default(),
        }
    }

    // ANCHOR: request
    /// One request, beside the mailbox: whoever else asks is heard meanwhile, the service itself above all.
    fn request(
        &self,
        service: Arc<Service>,
        question: &Question,
    ) -> impl Future<Output = Answer> + 'static {
        let (transport, sharing, path) =
            (self.transport.clone(), question.sharing, question.path());
        let body = question.body.clone().map(Bytes::from);
        let clock = self.env.clock.clone();
        let too_late = clock.sleep(rules::PATIENCE);
        let stopped = self.env.stopping.stopped();
        async move {
            tokio::select! {
                answer = transport.question(&service, &path, body, &clock) => match answer {
                    Ok(answer) => rules::answer(sharing, answer.status, answer.body),
                    Err(error) => Answer::failed(error.to_string()),
                },
                () = too_late => Answer::failed("no answer in time"),
                () = stopped => Answer::failed("the server stops"),
            }
        }
    }
    // ANCHOR_END: request

    /// The answer is here: remember it, and tell everybody who asked.
    fn answered(
        &mut self,
        interests: &Arc<Interests>,
        asked: &Asked,
        alone: Option<oneshot::Sender<Told>>,
        answer: Answer,
        busy: Busy,
    ) {
        let (service, question) = &**asked;
        if let Entry::Occupied(mut under_way) = self.under_way.entry(service.clone()) {
            *under_way.get_mut() -= 1;
            if *under_way.get() == 0 {
                under_way.remove();
            }
        }
        // What was said under other registrations says nothing now.
        if self.memory.belongs_to(interests) {
            self.memory
                .learn(asked, &answer, self.env.clock.monotonic());
        }
        let askers = match alone {
            Some(asker) => vec![asker],
            None => self.joined.remove(asked).unwrap_or_default(),
        };
        if let Answer::Failed(why) = &answer {
            tracing::warn!(%service, path = question.path(), why = &**why, "a question was not answered");
        }
        let record = Answered {
            service: service.clone(),
            question: question.clone(),
            askers: askers.len(),
            answer: answer.clone(),
        };
        self.env
            .trace
            .told("appservice_queries", "service", &record);
        for asker in askers {
            // Whoever gave up waiting is not there to hear it.
            let _ = asker.send(Told(answer.clone(), self.env.trace.busy()));
        }
        drop(busy);
    }
}

impl Actor for AppserviceQueries {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.life.watch(ctx, &self.env, "appservice_queries");
        ctx.set_mailbox_capacity(4096);
    }
}

impl Handler<Ask> for AppserviceQueries {
    type Result = Result<Pending>;

    fn handle(&mut self, msg: Ask, ctx: &mut Context<Self>) -> Self::Result {
        let interests = self.env.store.interests();
        self.memory.begin_with(&interests);
        let Some(service) = interests.service(&msg.service).cloned() else {
            return Ok(Pending::Known(Answer::failed("no such service")));
        };
        let asked: Asked = Arc::new((msg.service, msg.question));
        if let Some(answer) = self.memory.answer(&asked, self.env.clock.monotonic()) {
            return Ok(Pending::Known(answer));
        }
        let (tell, told) = oneshot::channel();
        if let Some(waiting) = self.joined.get_mut(&asked) {
            waiting.push(tell);
            return Ok(Pending::Asked(told));
        }
        let under_way = self.under_way.entry(service.id.clone()).or_default();
        if *under_way >= rules::UNDER_WAY {
            return Ok(Pending::Known(Answer::failed("too many at once")));
        }
        *under_way += 1;
        let alone = if asked.1.sharing == Sharing::Alone {
            Some(tell)
        } else {
            self.joined.insert(Arc::clone(&asked), vec![tell]);
            None
        };
        let busy = self.env.trace.busy();
        let request = self.request(service, &asked.1);
        ctx.spawn(request.into_actor(self).map(move |answer, this, _| {
            this.answered(&interests, &asked, alone, answer, busy);
        }));
        Ok(Pending::Asked(told))
    }
}
