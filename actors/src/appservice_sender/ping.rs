//! Pings to the appservice: concurrent with its transactions, a few at a time. A success ends the back-off.

use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::messages::Pinged;
use super::{AppserviceSender, Ping, Pinging, rules};
use crate::services::Service;
use crate::transport::Transport;
use crate::{Env, Refusal, Result};

/// The most pings under way to one appservice.
const PINGS: usize = 4;

/// The `retry_after_ms` of a ping beyond that.
const PING_LATER: u64 = 1_000;

impl Handler<Ping> for AppserviceSender {
    type Result = Result<Pinging>;

    /// Clause: as.ping.no-url
    fn handle(&mut self, msg: Ping, ctx: &mut Context<Self>) -> Self::Result {
        if self.service.registration.url.is_none() {
            return Err(Refusal::UrlNotSet.into());
        }
        if self.pings >= PINGS {
            let retry_after_ms = PING_LATER;
            return Err(Refusal::LimitExceeded { retry_after_ms }.into());
        }
        self.pings += 1;
        let (reply, receiver) = oneshot::channel();
        let busy = self.env.trace.busy();
        let ping = ping(
            self.env.clone(),
            self.transport.clone(),
            Arc::clone(&self.service),
            msg.transaction_id,
        );
        ctx.spawn(ping.into_actor(self).map(|took, this, ctx| {
            this.pings -= 1;
            if took.is_ok() {
                this.retry(ctx);
            }
            // The request may have ended; the failed send is ignored.
            let _ = reply.send(Pinged(took, this.env.trace.busy()));
            drop(busy);
        }));
        Ok(Pinging(receiver))
    }
}

/// Ping the appservice and wait for its answer. Clause: as.ping.request, as.ping.duration
async fn ping(
    env: Env,
    transport: Transport,
    service: Arc<Service>,
    transaction_id: Option<String>,
) -> Result<Duration> {
    let mut body = serde_json::Map::new();
    if let Some(id) = transaction_id {
        body.insert("transaction_id".to_owned(), id.into());
    }
    let body = Bytes::from(serde_json::Value::Object(body).to_string());
    let start = env.clock.monotonic();
    let answer = tokio::select! {
        answer = transport.ping(&service, body, &env.clock) => answer?,
        () = env.stopping.stopped() => {
            return Err(Refusal::ConnectionFailed("the server is shutting down".to_owned()).into());
        }
    };
    if !rules::is_acknowledged(answer.status) {
        return Err(Refusal::BadStatus {
            status: answer.status,
            body: answer.body,
        }
        .into());
    }
    let took = env.clock.monotonic() - start;
    Ok(Duration::from_millis(u64::try_from(took).unwrap_or(0)))
}
