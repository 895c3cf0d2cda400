//! Timers of stored values: the hook `due` of a proposal is called once the time of a value has come.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use schema::Tx;
use schema::scratch::{self, ScratchRow};

use super::Proposals;
use super::rules::wait_until;
use crate::hooks::{Hooks, Stored, with_part};
use crate::runtime::wake::TimerSet;
use crate::{Env, Error, Result};

/// The most timers that are read at once.
const AT_ONCE: i64 = 100;

/// The delay before a failed read or write is repeated.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Handler<TimerSet> for Proposals {
    type Result = ();

    /// Wait for the earliest timer, in place of any other wait.
    fn handle(&mut self, _: TimerSet, ctx: &mut Context<Self>) {
        if self.env.hooks.with_timers().is_empty() {
            return;
        }
        if let Some(earlier) = self.timer.take() {
            ctx.cancel_future(earlier);
        }
        let env = self.env.clone();
        let wait = async move { serve(&env).await };
        let wait = wait.into_actor(self).map(|(), this, _| this.timer = None);
        self.timer = Some(ctx.spawn(wait));
    }
}

/// Call the timers as their time comes, until none is left.
async fn serve(env: &Env) {
    loop {
        let busy = env.trace.busy();
        let (mscs, now) = (env.hooks.with_timers(), env.clock.now());
        let read = env.store.read(move |db| {
            let due = scratch::due(db, &mscs, now, AT_ONCE)?;
            Ok::<_, schema::Error>((due, scratch::next_due(db, &mscs)?))
        });
        let wait = match read.await {
            Ok((_, None)) | Err(schema::Error::Stopped) => return,
            Ok((due, Some(next))) if due.is_empty() => wait_until(next, now),
            Ok((due, _)) => call_all(env, due).await.then_some(RETRY_AFTER),
            Err(_) => Some(RETRY_AFTER),
        };
        drop(busy);
        if let Some(wait) = wait {
            env.clock.sleep(wait).await;
        }
    }
}

/// Call proposals for the values whose time has come, each in a write of its own. Returns whether a write failed that can succeed
/// later.
async fn call_all(env: &Env, due: Vec<ScratchRow>) -> bool {
    for row in due {
        let (hooks, value) = (env.hooks.clone(), row.clone());
        let write = env.store.write_always(move |tx| call(tx, &hooks, &value));
        match write.await {
            Ok(()) => {}
            Err(Error::Storage(error)) if error.is_temporary() => return true,
            Err(Error::Storage(schema::Error::Stopped)) => return true,
            Err(error) => {
                tracing::error!(msc = row.msc, key = row.key, %error, "a timer of a proposal failed; it is removed, and its value stays");
                let write = env.store.write_always(move |tx| {
                    scratch::end_timer(tx, &row)?;
                    Ok::<_, Error>(())
                });
                if write.await.is_err() {
                    return true;
                }
            }
        }
    }
    false
}

/// Part of a write: remove the time of a value, and call its proposal.
fn call(tx: &mut Tx<'_>, hooks: &Hooks, row: &ScratchRow) -> Result<()> {
    let own = hooks.all.iter().find(|h| i64::from(h.number) == row.msc);
    let Some((number, due)) = own.and_then(|hooks| Some((hooks.number, hooks.due?))) else {
        return Ok(());
    };
    if scratch::end_timer(tx, row)? {
        let value = Stored::from(row.clone());
        with_part(tx, number, |part| due(part, &value))?;
    }
    Ok(())
}
