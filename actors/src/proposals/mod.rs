//! The values that proposals store, and their timers.
//!
//! *Owns* `scratch`. Hooks of proposals also write to it, in the writes of other actors ([`Part`](crate::hooks::Part)).
//!
//! *Asks* no actor.
//!
//! *Tells* [`Wake`](crate::runtime::wake::Wake) what a hook wakes.
//!
//! *Promises* that a timer is called once its time has come, in a write that also removes its time, and that a restart loses no timer.
//!
//! *Spec* none: see the chapter on proposals in the book.

mod messages;
mod rules;
mod synced;
mod timers;
mod write;

use actix::{Actor, AsyncContext, Context, SpawnHandle};

use crate::Env;
use crate::runtime::wake::TimerSet;
use crate::runtime::watchdog::Watchdog;

pub use messages::*;

/// The actor.
pub struct Proposals {
    env: Env,
    watchdog: Watchdog,
    /// The wait for the next timer, or the write of the timers whose time has come.
    timer: Option<SpawnHandle>,
}

impl Proposals {
    /// The actor over this storage.
    pub fn new(env: Env) -> Proposals {
        Proposals {
            env,
            watchdog: Watchdog::default(),
            timer: None,
        }
    }
}

impl Actor for Proposals {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.watchdog.watch(ctx, &self.env, "proposals");
        ctx.set_mailbox_capacity(4096);
        // Timers that an earlier run has left.
        ctx.notify(TimerSet);
    }
}
