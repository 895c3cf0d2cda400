//! Sends the last acknowledged transaction again, with the same id and the same bytes, as a homeserver does that has not seen the
//! 2xx. Only a development server does this, on request. Nothing is recorded as delivered by it.

use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, ResponseFuture, WrapFuture};
use bytes::Bytes;
use schema::ServiceId;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::{AppserviceSender, Attempt, Resend, Resent, SenderState, rules};
use crate::runtime::clock::Stopwatch;
use crate::{Env, Error, Refusal, Result};

/// An attempt, as the trace has it.
#[derive(Deserialize)]
struct Traced {
    service: ServiceId,
    transaction: i64,
    attempt: u32,
    outcome: String,
    body: Box<RawValue>,
}

/// The last acknowledged attempt of an appservice that is still in the trace.
fn last_acknowledged(env: &Env, service: &ServiceId) -> Option<Traced> {
    let seen = env.trace.after(0);
    let attempts = seen.iter().rev().filter(|seen| seen.what == "Attempt");
    let mut attempts = attempts.filter_map(|seen| serde_json::from_str(seen.body.get()).ok());
    attempts.find(|attempt: &Traced| {
        let status = attempt.outcome.parse();
        attempt.service == *service && status.is_ok_and(rules::is_acknowledged)
    })
}

impl Handler<Resend> for AppserviceSender {
    type Result = ResponseFuture<Result<Resent>>;

    fn handle(&mut self, _: Resend, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, receiver) = oneshot::channel();
        match self.resend(ctx, reply) {
            Ok(()) => Box::pin(async {
                let sent = receiver.await;
                sent.map_err(|_| Error::Failed("appservice_sender"))?
            }),
            Err(refusal) => Box::pin(async { Err(refusal.into()) }),
        }
    }
}

impl AppserviceSender {
    fn resend(
        &mut self,
        ctx: &mut Context<Self>,
        reply: oneshot::Sender<Result<Resent>>,
    ) -> Result<(), Refusal> {
        if matches!(
            self.state,
            SenderState::Sending(_) | SenderState::Waiting(..)
        ) {
            let why =
                "a later transaction is being sent; it can be sent again once it is acknowledged";
            return Err(Refusal::Forbidden(why.into()));
        }
        let Some(last) = last_acknowledged(&self.env, &self.service.id) else {
            let why = "no acknowledged transaction of this application service is in the trace";
            return Err(Refusal::NotFound(why.into()));
        };
        let (transport, service) = (self.transport.clone(), Arc::clone(&self.service));
        let (env, busy) = (self.env.clone(), self.env.trace.busy());
        let body = Bytes::from(last.body.get().to_owned());
        let again = async move {
            let (id, clock, since) = (last.transaction, env.clock.clone(), Stopwatch::start());
            let answer = transport.transaction(&service, id, body, &clock, 0).await;
            let outcome = match &answer {
                Ok(answer) => answer.status.to_string(),
                Err(error) => error.to_string(),
            };
            let attempt = Attempt {
                service: last.service,
                transaction: last.transaction,
                attempt: last.attempt + 1,
                at: clock.now(),
                outcome: outcome.clone(),
                path: answer.ok().and_then(|answer| answer.legacy),
                body: last.body,
            };
            attempt.record(&env, since.micros());
            Resent {
                transaction: attempt.transaction,
                outcome,
            }
        };
        ctx.spawn(again.into_actor(self).map(move |resent, _, _| {
            // The request may have ended; the failed send is ignored.
            let _ = reply.send(Ok(resent));
            drop(busy);
        }));
        Ok(())
    }
}
