//! Timers of stored values: the hook `due` of a proposal is called once the time of a value has come.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use schema::{Tx, scratch};

use super::Proposals;
use crate::hooks::{Hooks, Stored, with_part};
use crate::runtime::wake::TimerSet;
use crate::{Env, Error, Result};

/// The most timers in one write.
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
        let mscs = env.hooks.with_timers();
        let next = env.store.read(move |db| scratch::next_due(db, &mscs)).await;
        let wait = match next {
            Ok(None) | Err(schema::Error::Stopped) => return,
            Ok(Some(due)) => u64::try_from(due - env.clock.now()).unwrap_or_default(),
            Err(_) => 1_000,
        };
        if wait > 0 {
            drop(busy);
            env.clock.sleep(Duration::from_millis(wait)).await;
            continue;
        }
        let (hooks, now) = (env.hooks.clone(), env.clock.now());
        let write = env
            .store
            .write_always(move |tx| call_due(tx, &hooks, now))
            .await;
        match write {
            Ok(()) => {}
            Err(Error::Storage(schema::Error::Stopped)) => return,
            Err(error) => {
                tracing::error!(%error, "a timer of a proposal failed; the next attempt follows");
                let _waiting = env.trace.parked();
                env.clock.sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Part of a write: remove the time of each value whose time has come, and call its proposal.
fn call_due(tx: &mut Tx<'_>, hooks: &Hooks, now: i64) -> Result<()> {
    for row in scratch::due(tx, &hooks.with_timers(), now, AT_ONCE)? {
        let all = hooks.all.iter();
        let Some((number, due)) = all
            .filter(|hooks| i64::from(hooks.number) == row.msc)
            .find_map(|hooks| Some((hooks.number, hooks.due?)))
        else {
            continue;
        };
        scratch::end_timer(tx, number, &row.key)?;
        let value = Stored::from(row);
        with_part(tx, number, |part| due(part, &value))?;
    }
    Ok(())
}
