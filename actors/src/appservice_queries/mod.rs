//! Queries to application services outside transactions, each a [`Question`]: whether a user or an alias exists, and look-ups in
//! third-party networks.
//!
//! *Owns* no tables; in memory the queries under way and recent answers.
//!
//! *Asks* no actor. A request handler asks it before it sends its message to an owner of data, so an owner never waits for an
//! appservice, which may call back.
//!
//! *Tells* no actor.
//!
//! *Promises* that the same question at the same time is one request; that at most [`rules::UNDER_WAY`] requests to an
//! appservice are under way; that every question is answered within [`rules::TIMEOUT`]; that a question without an answer is
//! not sent again at once.
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

use crate::runtime::trace::Busy;
use crate::runtime::watchdog::Watchdog;
use crate::services::{CarriesInterests, Interests, Service};
use crate::transport::Transport;
use crate::{Address, Env, Result, ask_as};
use memory::{AnswerCache, AskedService};

pub use messages::*;
pub use provision::provision;

/// The actor.
pub struct AppserviceQueries {
    env: Env,
    transport: Transport,
    memory: AnswerCache,
    /// The requests that wait for the answer to a question which others may join.
    joined: BTreeMap<AskedService, Vec<oneshot::Sender<Delivered>>>,
    /// The number of requests under way to each appservice; those with none have no entry.
    under_way: BTreeMap<ServiceId, usize>,
    watchdog: Watchdog,
}

/// Send a question to an appservice on behalf of a request, and wait for the answer.
///
/// # Errors
/// The actor is gone. A missing answer is an [`Answer`], not an error.
pub async fn put(
    queries: &Address<AppserviceQueries>,
    service: &ServiceId,
    question: Question,
) -> Result<Answer> {
    put_as("http", queries, service, question).await
}

/// Send a question to an appservice on behalf of an actor, and wait for the answer.
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

/// Wait for the questions of one request until all are answered or [`rules::TIMEOUT`] is over. Several are sent to each
/// appservice at once, so that one slow answer does not block the others. The answers that come later are cached for later
/// requests.
async fn answers_in_time<T, W: Future<Output = Result<T>>>(
    env: &Env,
    waits: impl Iterator<Item = (ServiceId, W)>,
    mut on_answer: impl FnMut(T),
) -> Result<()> {
    let mut by_service: BTreeMap<ServiceId, Vec<W>> = BTreeMap::new();
    for (service, wait) in waits {
        by_service.entry(service).or_default().push(wait);
    }
    let lanes = by_service.into_values();
    let lanes = lanes.map(|lane| Box::pin(stream::iter(lane).buffer_unordered(rules::AT_ONCE)));
    let mut lanes = stream::select_all(lanes);
    let too_late = env.clock.sleep(rules::TIMEOUT);
    let all = async {
        while let Some(answer) = lanes.next().await {
            on_answer(answer?);
        }
        Ok(())
    };
    tokio::select! {
        // The order matters: the questions under way end at the same time, and no further ones may start in their place.
        biased;
        () = too_late => Ok(()),
        done = all => done,
    }
}

impl AppserviceQueries {
    /// An actor with an empty cache.
    pub fn new(env: Env, transport: Transport) -> AppserviceQueries {
        AppserviceQueries {
            env,
            transport,
            memory: AnswerCache::default(),
            joined: BTreeMap::new(),
            under_way: BTreeMap::new(),
            watchdog: Watchdog::default(),
        }
    }

    // ANCHOR: request
    /// Send one request concurrently, so the actor stays responsive, especially to the appservice's own calls.
    fn request(
        &self,
        service: Arc<Service>,
        question: &Question,
    ) -> impl Future<Output = Answer> + 'static {
        let (transport, sharing, path) =
            (self.transport.clone(), question.sharing, question.path());
        let body = question.body.clone().map(Bytes::from);
        let clock = self.env.clock.clone();
        let too_late = clock.sleep(rules::TIMEOUT);
        let stopped = self.env.stopping.stopped();
        async move {
            tokio::select! {
                answer = transport.question(&service, &path, body, &clock) => match answer {
                    Ok(answer) => rules::answer(sharing, answer.status, answer.body),
                    Err(error) => Answer::failed(error.to_string()),
                },
                () = too_late => Answer::failed("no answer in time"),
                () = stopped => Answer::failed("the server is shutting down"),
            }
        }
    }
    // ANCHOR_END: request

    /// An answer has arrived: cache it, and pass it to all requests that wait for it.
    fn complete(
        &mut self,
        interests: &Arc<Interests>,
        asked: &AskedService,
        alone: Option<oneshot::Sender<Delivered>>,
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
        // Answers given under other registrations are not cached.
        if self.memory.belongs_to(interests) {
            self.memory
                .learn(asked, &answer, self.env.clock.monotonic());
        }
        let replies = match alone {
            Some(reply) => vec![reply],
            None => self.joined.remove(asked).unwrap_or_default(),
        };
        if let Answer::Failed(why) = &answer {
            tracing::warn!(%service, path = question.path(), why = &**why, "the application service did not answer a question");
        }
        let record = Answered {
            service: service.clone(),
            question: question.clone(),
            askers: replies.len(),
            answer: answer.clone(),
        };
        self.env
            .trace
            .record_message("appservice_queries", "service", &record);
        for reply in replies {
            // The caller may have given up waiting.
            let _ = reply.send(Delivered(answer.clone(), self.env.trace.busy()));
        }
        drop(busy);
    }
}

impl Actor for AppserviceQueries {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.watchdog.watch(ctx, &self.env, "appservice_queries");
        ctx.set_mailbox_capacity(4096);
    }
}

impl Handler<Ask> for AppserviceQueries {
    type Result = Result<PendingAnswer>;

    fn handle(&mut self, msg: Ask, ctx: &mut Context<Self>) -> Self::Result {
        let interests = self.env.store.interests();
        self.memory.begin_with(&interests);
        let Some(service) = interests.service(&msg.service).cloned() else {
            return Ok(PendingAnswer::Known(Answer::failed("no such service")));
        };
        let asked: AskedService = Arc::new((msg.service, msg.question));
        if let Some(answer) = self.memory.answer(&asked, self.env.clock.monotonic()) {
            return Ok(PendingAnswer::Known(answer));
        }
        let (reply, receiver) = oneshot::channel();
        if let Some(waiting) = self.joined.get_mut(&asked) {
            waiting.push(reply);
            return Ok(PendingAnswer::Asked(receiver));
        }
        let under_way = self.under_way.entry(service.id.clone()).or_default();
        if *under_way >= rules::UNDER_WAY {
            return Ok(PendingAnswer::Known(Answer::failed("too many at once")));
        }
        *under_way += 1;
        let alone = if asked.1.sharing == Sharing::Alone {
            Some(reply)
        } else {
            self.joined.insert(Arc::clone(&asked), vec![reply]);
            None
        };
        let busy = self.env.trace.busy();
        let request = self.request(service, &asked.1);
        ctx.spawn(request.into_actor(self).map(move |answer, this, _| {
            this.complete(&interests, &asked, alone, answer, busy);
        }));
        Ok(PendingAnswer::Asked(receiver))
    }
}
