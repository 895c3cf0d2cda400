//! How actors are spoken to: [`ask`] where the answer or the commit matters, [`tell`] for facts and nudges.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use actix::dev::MessageResponse;
use actix::{Actor, Addr, Context, Handler, MailboxError, Message, Recipient, ResponseFuture};
use futures_util::FutureExt;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::runtime::trace::{self, short};
use crate::{Env, Error, Result};

/// How long an answer may take before the asker gives up. Long enough for a slow disk, shorter than a client's patience.
const PATIENCE: Duration = Duration::from_secs(30);

/// An actor that may be asked.
pub struct Address<A: Actor> {
    addr: Addr<A>,
    name: &'static str,
    env: Env,
}

impl<A: Actor> Clone for Address<A> {
    fn clone(&self) -> Self {
        Address {
            addr: self.addr.clone(),
            name: self.name,
            env: self.env.clone(),
        }
    }
}

impl<A: Actor<Context = Context<A>>> Address<A> {
    /// Name an actor's address.
    #[must_use]
    pub fn new(addr: Addr<A>, name: &'static str, env: Env) -> Address<A> {
        Address { addr, name, env }
    }

    /// The address itself, for an actor that needs a `Recipient` of one message.
    #[must_use]
    pub fn addr(&self) -> &Addr<A> {
        &self.addr
    }

    /// The actor's name, as traced.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// A question to an actor: what the actor tells and writes because of it is recorded under the request that caused it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Asked<A: Actor>(Box<dyn FnOnce(&mut A, &mut A::Context) + Send>);

impl<A: Actor> Asked<A> {
    /// Have the actor handle it.
    pub(crate) fn put(self, actor: &mut A, ctx: &mut A::Context) {
        (self.0)(actor, ctx);
    }
}

/// Lets actors be asked.
macro_rules! can_be_asked {
    ($($actor:ty),+ $(,)?) => {$(
        impl ::actix::Handler<$crate::runtime::address::Asked<$actor>> for $actor {
            type Result = ();

            fn handle(
                &mut self,
                asked: $crate::runtime::address::Asked<$actor>,
                ctx: &mut Self::Context,
            ) {
                asked.put(self, ctx);
            }
        }
    )+};
}
pub(crate) use can_be_asked;

/// Ask an actor on behalf of a request, and wait for the answer.
///
/// # Errors
/// What the actor answers; [`Error::Slow`] without an answer in time; [`Error::Failed`] when it is gone. A core actor
/// that is gone ends the process: starting again loses nothing.
pub async fn ask<A, M, T>(to: &Address<A>, message: M) -> Result<T>
where
    A: Actor<Context = Context<A>> + Handler<M> + Handler<Asked<A>>,
    M: Message<Result = Result<T>> + Serialize + Send + 'static,
    T: Send + 'static,
{
    ask_as("http", to, message).await
}

/// Ask an actor on behalf of another, and wait for the answer. Errors as for [`ask`].
///
/// # Errors
/// As for [`ask`].
pub async fn ask_as<A, M, T>(from: &'static str, to: &Address<A>, message: M) -> Result<T>
where
    A: Actor<Context = Context<A>> + Handler<M> + Handler<Asked<A>>,
    M: Message<Result = Result<T>> + Serialize + Send + 'static,
    T: Send + 'static,
{
    let _busy = to.env.trace.busy();
    to.env.trace.told(from, to.name, &message);
    let ((tell, answer), cause) = (oneshot::channel(), trace::cause());
    let handle = move |actor: &mut A, ctx: &mut Context<A>| {
        // An asker that has given up is not answered.
        if !tell.is_closed() {
            trace::within(cause, || actor.handle(message, ctx).handle(ctx, Some(tell)));
        }
    };
    let answer = async {
        to.addr.send(Asked(Box::new(handle))).await?;
        answer.await.map_err(|_| MailboxError::Closed)
    };
    match timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => answer,
        Err(_) | Ok(Err(MailboxError::Timeout)) => Err(Error::Slow(to.name)),
        Ok(Err(MailboxError::Closed)) => {
            // A handler that was dropped looks the same: only an address that leads nowhere is a dead actor.
            if !to.addr.connected() {
                (to.env.fatal)(&format!("the actor {} has died", to.name));
            }
            Err(Error::Failed(to.name))
        }
    }
}

/// Tell an actor a fact whose row is committed already. A full mailbox loses the word, not the fact: start-up and the next
/// word read the row.
pub fn tell<M>(env: &Env, from: &'static str, to: &Recipient<M>, name: &'static str, message: M)
where
    M: Message + Serialize + Send + 'static,
    M::Result: Send,
{
    env.trace.told(from, name, &message);
    if to.try_send(message).is_err() {
        tracing::debug!(
            from,
            to = name,
            what = short::<M>(),
            "a hint was dropped; the row it speaks of is on the disk"
        );
    }
}

/// The answer of a handler: what it began is under way until it ends, and a panic is an error for its asker alone.
pub fn guarded<T: 'static>(
    env: &Env,
    name: &'static str,
    answer: impl Future<Output = Result<T>> + 'static,
) -> ResponseFuture<Result<T>> {
    let busy = env.trace.busy();
    let answer = trace::caused_by(trace::cause(), AssertUnwindSafe(answer).catch_unwind());
    Box::pin(async move {
        let answer = answer.await;
        drop(busy);
        answer.unwrap_or_else(|_| {
            tracing::error!(actor = name, "a handler panicked; its asker is told");
            Err(Error::Failed(name))
        })
    })
}
