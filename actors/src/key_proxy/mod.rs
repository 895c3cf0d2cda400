//! Keys that appservices keep themselves: during a claim or a query, the appservice that owns a user is asked for the user's
//! keys, if MSC3983 (claims) or MSC3984 (queries) is enabled and the registration opts in.
//!
//! *Owns* no tables; in memory recent answers of appservices, and which of their one-time keys were given away.
//!
//! *Asks* `key_store` and `appservice_queries`, alternately. It may wait for an appservice because it owns no rows: if the
//! appservice calls back, `key_store` can answer.
//!
//! *Tells* no actor.
//!
//! *Promises* that stored keys are returned where an appservice has none; that only the requested parts of an answer are used,
//! and only if they pass the checks of an upload; that a one-time key is requested and given away for one claim, and not again
//! while it is cached; that an appservice is asked for the keys of a user once in ten seconds at most.
//!
//! *Spec* [MSC3983](https://github.com/matrix-org/matrix-spec-proposals/pull/3983),
//! [MSC3984](https://github.com/matrix-org/matrix-spec-proposals/pull/3984).

mod claim;
mod hooks;
mod memory;
mod messages;
pub mod queries;
mod query;
pub mod rules;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, WrapFuture};
use futures_util::future::join_all;
use schema::ServiceId;
use tokio::sync::oneshot;

use crate::appservice_queries::{Answer, AppserviceQueries, Question, put_as};
use crate::key_store::KeyStore;
use crate::runtime::trace::{Context as Cause, caused_by};
use crate::runtime::watchdog::Watchdog;
use crate::{Address, Env, Result, guarded};
use memory::{GivenKeys, KeyAnswers};
use messages::{FoundKeys, NAME};

pub use hooks::{ClaimProxy, Proxies, Proxy, QueryProxy, ReadAnswer};
pub use messages::*;

/// The actor.
pub struct KeyProxy {
    state: Rc<KeyProxyState>,
    watchdog: Watchdog,
}

/// What a claim or a query needs while it runs concurrently.
struct KeyProxyState {
    env: Env,
    key_store: Address<KeyStore>,
    services: Address<AppserviceQueries>,
    proxies: Proxies,
    answers: RefCell<KeyAnswers>,
    given: RefCell<GivenKeys>,
}

impl KeyProxy {
    /// A proxy with empty caches.
    pub fn new(
        env: Env,
        key_store: Address<KeyStore>,
        services: Address<AppserviceQueries>,
        proxies: Proxies,
    ) -> KeyProxy {
        let state = KeyProxyState {
            env,
            key_store,
            services,
            proxies,
            answers: RefCell::default(),
            given: RefCell::default(),
        };
        KeyProxy {
            state: Rc::new(state),
            watchdog: Watchdog::default(),
        }
    }

    /// Start this work concurrently, with `cause` as its cause.
    fn begin<T: 'static>(
        &self,
        ctx: &mut Context<Self>,
        cause: Cause,
        work: impl Future<Output = Result<T>> + 'static,
    ) -> PendingKeys<T> {
        let (reply, receiver) = oneshot::channel();
        let env = self.state.env.clone();
        let work = guarded(&env, NAME, caused_by(cause, work));
        let task = async move {
            let answer = work.await;
            // The caller may have given up waiting.
            let _ = reply.send(FoundKeys(answer, env.trace.busy()));
        };
        ctx.spawn(task.into_actor(self));
        PendingKeys(receiver)
    }
}

impl KeyProxyState {
    /// Send all questions at the same time. Each is returned with its answer, or with `None` if there is none.
    async fn put_all<T>(
        &self,
        questions: Vec<(ServiceId, T, Question)>,
    ) -> Result<Vec<(ServiceId, T, Option<Arc<str>>)>> {
        let put = |(service, about, question)| async move {
            let text = match put_as(NAME, &self.services, &service, question).await? {
                Answer::Yes(text) => Some(text),
                Answer::No | Answer::Unsupported | Answer::Failed(_) => None,
            };
            Ok((service, about, text))
        };
        let _parked = self.env.trace.parked();
        let answers = join_all(questions.into_iter().map(put)).await;
        answers.into_iter().collect()
    }
}

/// Log the parts of an appservice's answer that are not used.
fn log_dropped(service: &ServiceId, endpoint: &str, dropped: &[String]) {
    for why in dropped {
        tracing::warn!(%service, endpoint, why, "a part of an answer was dropped");
    }
}

impl Actor for KeyProxy {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.watchdog.watch(ctx, &self.state.env, NAME);
        ctx.set_mailbox_capacity(4096);
    }
}
