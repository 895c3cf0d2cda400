//! The log of device lists forgets what is older than any token that is still in use.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use schema::{Position, device_log};

use super::{DeviceLists, PruneLog};
use crate::{Env, Error, Result};

/// How often.
const EVERY: Duration = Duration::from_secs(3600);

/// How many days the log goes back at least. A client with an older token is told of everybody that it shares a room with.
const DAYS: i64 = 30;

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// How many lines are deleted in one write: others wait for no more.
const PIECE: i64 = 1000;

impl DeviceLists {
    /// Prune in an hour.
    pub(super) fn prune_later(&self, ctx: &mut Context<Self>) {
        let sleep = self.env.clock.sleep(EVERY).into_actor(self);
        ctx.spawn(sleep.map(|(), _, ctx| ctx.notify(PruneLog)));
    }
}

impl Handler<PruneLog> for DeviceLists {
    type Result = ();

    fn handle(&mut self, _: PruneLog, ctx: &mut Context<Self>) {
        let env = self.env.clone();
        let busy = env.trace.busy();
        let pruned = async move {
            if let Err(error) = prune(&env).await {
                tracing::warn!(%error, "the log of device lists was not pruned; it is tried again in an hour");
            }
            drop(busy);
        };
        ctx.spawn(pruned.into_actor(self));
        self.prune_later(ctx);
    }
}

async fn prune(env: &Env) -> Result<()> {
    let today = env.clock.now().div_euclid(DAY);
    let mark = env.store.write_always(move |tx| {
        let head = tx.head();
        Ok::<_, Error>(device_log::mark_day(tx, today, head, today - DAYS)?)
    });
    let Some(up_to) = mark.await? else {
        return Ok(());
    };
    while prune_piece(env, up_to).await? == PIECE {}
    Ok(())
}

async fn prune_piece(env: &Env, up_to: Position) -> Result<i64> {
    let piece = env
        .store
        .write_always(move |tx| Ok::<_, Error>(device_log::prune(tx, up_to, PIECE)?));
    piece.await
}
