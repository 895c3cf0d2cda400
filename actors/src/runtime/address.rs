//! Sending messages to actors: [`ask`] waits for an answer, [`tell`] sends a notification and does not wait.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use actix::dev::MessageResponse;
use actix::{Actor, Addr, Context, Handler, MailboxError, Message, Recipient, ResponseFuture};
use futures_util::FutureExt;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::runtime::meter::Mailbox;
use crate::runtime::trace::{self, short};
use crate::{Env, Error, Result};

/// How long to wait for an answer. Long enough for a slow disk, shorter than the time-outs of clients.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The address of an actor that answers requests.
pub struct Address<A: Actor> {
    addr: Addr<A>,
    name: &'static str,
    env: Env,
    mailbox: Mailbox,
}

impl<A: Actor> Clone for Address<A> {
    fn clone(&self) -> Self {
        Address {
            addr: self.addr.clone(),
            name: self.name,
            env: self.env.clone(),
            mailbox: self.mailbox.clone(),
        }
    }
}

impl<A: Actor<Context = Context<A>>> Address<A> {
    /// The address of an actor, with the name under which it is traced.
    pub fn new(addr: Addr<A>, name: &'static str, env: Env) -> Address<A> {
        let mailbox = env.meter.mailbox(name);
        Address {
            addr,
            name,
            env,
            mailbox,
        }
    }

    /// The underlying address, for an actor that needs a `Recipient` of one message.
    pub fn addr(&self) -> &Addr<A> {
        &self.addr
    }

    /// The actor's name in the trace.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl<A> Address<A>
where
    A: Actor<Context = Context<A>> + Handler<Envelope<A>>,
{
    /// Whether the actor takes a message out of its mailbox within this time.
    pub async fn is_answering(&self, within: Duration) -> bool {
        let (reply, answer) = oneshot::channel();
        let handle = move |_: &mut A, _: &mut Context<A>| {
            // The caller may have stopped waiting.
            let _ = reply.send(());
        };
        let answered = async {
            let sent = self.addr.send(Envelope(Box::new(handle))).await;
            sent.is_ok() && answer.await.is_ok()
        };
        timeout(within, answered).await == Ok(true)
    }
}

/// A request to an actor. The messages and writes that it causes are recorded under the request that caused it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Envelope<A: Actor>(Handling<A>);

/// The handling of one request.
type Handling<A> = Box<dyn FnOnce(&mut A, &mut <A as Actor>::Context) + Send>;

impl<A: Actor> Envelope<A> {
    /// Run the handler on the actor.
    pub(crate) fn put(self, actor: &mut A, ctx: &mut A::Context) {
        (self.0)(actor, ctx);
    }
}

/// Implement the traits that let an actor receive [`Envelope`].
macro_rules! can_be_asked {
    ($($actor:ty),+ $(,)?) => {$(
        impl ::actix::Handler<$crate::runtime::address::Envelope<$actor>> for $actor {
            type Result = ();

            fn handle(
                &mut self,
                asked: $crate::runtime::address::Envelope<$actor>,
                ctx: &mut Self::Context,
            ) {
                asked.put(self, ctx);
            }
        }
    )+};
}
pub(crate) use can_be_asked;

/// Send a message to an actor on behalf of a request, and wait for the answer.
///
/// # Errors
/// The error of the handler; [`Error::Slow`] without an answer in time; [`Error::Failed`] when the handler panicked or the
/// actor has died. A dead actor ends the process: a restart loses no data.
pub async fn ask<A, M, T>(to: &Address<A>, message: M) -> Result<T>
where
    A: Actor<Context = Context<A>> + Handler<M> + Handler<Envelope<A>>,
    M: Message<Result = Result<T>> + Serialize + Send + 'static,
    T: Send + 'static,
{
    ask_as("http", to, message).await
}

/// Send a message to an actor on behalf of another actor, and wait for the answer.
///
/// # Errors
/// As for [`ask`].
pub async fn ask_as<A, M, T>(from: &'static str, to: &Address<A>, message: M) -> Result<T>
where
    A: Actor<Context = Context<A>> + Handler<M> + Handler<Envelope<A>>,
    M: Message<Result = Result<T>> + Serialize + Send + 'static,
    T: Send + 'static,
{
    let _busy = to.env.trace.busy();
    to.env.trace.record_message(from, to.name, &message);
    let measured = to.env.performance.asked(to.name, short::<M>());
    let ((reply, answer), context) = (oneshot::channel(), trace::context());
    let in_mailbox = to.mailbox.enter();
    let handle = move |actor: &mut A, ctx: &mut Context<A>| {
        drop(in_mailbox);
        // Skip the work if the caller no longer waits.
        if !reply.is_closed() {
            trace::within(context, || {
                actor.handle(message, ctx).handle(ctx, Some(reply))
            });
        }
    };
    let answer = async {
        to.addr.send(Envelope(Box::new(handle))).await?;
        answer.await.map_err(|_| MailboxError::Closed)
    };
    let answered = match timeout(TIMEOUT, answer).await {
        Ok(Ok(answer)) => answer,
        Err(_) | Ok(Err(MailboxError::Timeout)) => Err(Error::Slow(to.name)),
        Ok(Err(MailboxError::Closed)) => {
            // A dropped handler looks the same: the actor is dead only if its address is disconnected.
            if !to.addr.connected() {
                (to.env.fatal)(&format!("the actor {} has died", to.name));
            }
            Err(Error::Failed(to.name))
        }
    };
    if let Some(measured) = measured {
        measured.answered(answered.as_ref().err(), &to.env.clock);
    }
    answered
}

/// Notify an actor of a fact whose row is already committed. A full mailbox drops the message but not the fact: the next
/// message, or the next start, leads the actor to the row.
pub fn tell<M>(env: &Env, from: &'static str, to: &Recipient<M>, name: &'static str, message: M)
where
    M: Message + Serialize + Send + 'static,
    M::Result: Send,
{
    env.trace.record_message(from, name, &message);
    if to.try_send(message).is_err() {
        tracing::debug!(
            from,
            to = name,
            what = short::<M>(),
            "a notification was dropped; its row is in the database"
        );
    }
}

/// Run the future of a handler. It counts as work under way until it ends; a panic becomes an error for its caller alone.
pub fn guarded<T: 'static>(
    env: &Env,
    name: &'static str,
    answer: impl Future<Output = Result<T>> + 'static,
) -> ResponseFuture<Result<T>> {
    let busy = env.trace.busy();
    let answer = trace::caused_by(trace::context(), AssertUnwindSafe(answer).catch_unwind());
    Box::pin(async move {
        let answer = answer.await;
        drop(busy);
        answer.unwrap_or_else(|_| {
            tracing::error!(
                actor = name,
                "a handler panicked; its caller receives an error"
            );
            Err(Error::Failed(name))
        })
    })
}
