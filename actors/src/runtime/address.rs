//! How actors are spoken to: [`ask`] where the answer or the commit matters, [`tell`] for facts and nudges.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Context, Handler, MailboxError, Message, Recipient, ResponseFuture};
use futures_util::FutureExt;
use serde::Serialize;

use crate::runtime::trace::short;
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

/// Ask an actor on behalf of a request, and wait for the answer.
///
/// # Errors
/// What the actor answers; [`Error::Slow`] without an answer in time; [`Error::Failed`] when it is gone. A core actor
/// that is gone ends the process: starting again loses nothing.
pub async fn ask<A, M, T>(to: &Address<A>, message: M) -> Result<T>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    A::Context: ToEnvelope<A, M>,
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
    A: Actor<Context = Context<A>> + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result = Result<T>> + Serialize + Send + 'static,
    T: Send + 'static,
{
    let _busy = to.env.trace.busy();
    to.env.trace.told(from, to.name, &message);
    match to.addr.send(message).timeout(PATIENCE).await {
        Ok(answer) => answer,
        Err(MailboxError::Timeout) => Err(Error::Slow(to.name)),
        Err(MailboxError::Closed) => {
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
    Box::pin(async move {
        let answer = AssertUnwindSafe(answer).catch_unwind().await;
        drop(busy);
        answer.unwrap_or_else(|_| {
            tracing::error!(actor = name, "a handler panicked; its asker is told");
            Err(Error::Failed(name))
        })
    })
}
