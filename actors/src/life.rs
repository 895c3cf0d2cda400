//! The death of an actor ends the process: starting again loses nothing, and an actor that is missing loses what it is told.
//!
//! actix restarts no actor that has panicked, in a handler or in a future that it spawned. An asked actor is missed by whoever asks;
//! an actor that is only told things would be missed by nothing.

use actix::{Actor, AsyncContext, Context};
use tokio::sync::oneshot;

use crate::Env;

/// A part of an actor, dropped with it.
#[derive(Default)]
pub(crate) struct Life(Option<oneshot::Sender<()>>);

impl Life {
    /// End the process when this actor dies. Called by the actor when it starts. An actor that nothing can speak to any more has
    /// ended, not died.
    pub(crate) fn watch<A>(&mut self, ctx: &mut Context<A>, env: &Env, name: &'static str)
    where
        A: Actor<Context = Context<A>>,
    {
        let (alive, dropped) = oneshot::channel();
        self.0 = Some(alive);
        let (env, actor) = (env.clone(), ctx.address().downgrade());
        actix_rt::spawn(async move {
            // An error by design: nothing is ever sent.
            let _ = dropped.await;
            if actor.upgrade().is_some_and(|actor| !actor.connected()) {
                (env.fatal)(&format!("the actor {name} has died"));
            }
        });
    }
}
