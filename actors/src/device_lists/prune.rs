//! Deletes old lines of the device-list log, which no recent sync token needs.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use schema::{Position, device_log};

use super::{DeviceLists, PruneLog};
use crate::{Env, Error, Result};

/// The interval between two deletions.
const EVERY: Duration = Duration::from_secs(3600);

/// The days for which lines are kept at least. A client with an older token is told that all users it shares a room with have
/// changed.
const DAYS: i64 = 30;

/// The milliseconds of a day.
const DAY: i64 = 86_400_000;

/// The most lines deleted in one write, so that other writes do not wait long.
const PIECE: i64 = 1000;

impl DeviceLists {
    /// Schedule the next deletion.
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
                tracing::warn!(%error, "the log of device lists was not pruned; the next attempt is in an hour");
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
