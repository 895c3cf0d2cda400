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
        let env = env.clone();
        self.watch_with(ctx, move || {
            (env.fatal)(&format!("the actor {name} has died"));
        });
    }

    fn watch_with<A>(&mut self, ctx: &mut Context<A>, died: impl FnOnce() + 'static)
    where
        A: Actor<Context = Context<A>>,
    {
        let (alive, dropped) = oneshot::channel();
        self.0 = Some(alive);
        let actor = ctx.address().downgrade();
        actix_rt::spawn(async move {
            // An error by design: nothing is ever sent.
            let _ = dropped.await;
            if actor.upgrade().is_some_and(|actor| !actor.connected()) {
                died();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use actix::{Handler, Message, WrapFuture};

    use super::*;

    struct Mortal {
        died: Rc<Cell<bool>>,
        life: Life,
    }

    impl Actor for Mortal {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Context<Self>) {
            let died = Rc::clone(&self.died);
            self.life.watch_with(ctx, move || died.set(true));
        }
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    enum Told {
        Nothing,
        PanicHere,
        PanicInAFuture,
    }

    impl Handler<Told> for Mortal {
        type Result = ();

        fn handle(&mut self, told: Told, ctx: &mut Context<Self>) {
            match told {
                Told::Nothing => {}
                Told::PanicHere => panic!("in a handler"),
                Told::PanicInAFuture => {
                    ctx.spawn(async { panic!("in a future") }.into_actor(self));
                }
            }
        }
    }

    /// Whether the death of an actor that was told this is noticed, while somebody still knows it.
    async fn is_noticed(told: Told, keep: bool) -> bool {
        let died = Rc::new(Cell::new(false));
        let mortal = Mortal {
            died: Rc::clone(&died),
            life: Life::default(),
        };
        let address = mortal.start();
        address.try_send(told).expect("room in the mailbox");
        let known = keep.then_some(address);
        for _ in 0..100 {
            actix_rt::task::yield_now().await;
        }
        drop(known);
        died.get()
    }

    #[actix_rt::test]
    async fn a_death_is_noticed_and_an_end_is_none() {
        assert!(is_noticed(Told::PanicHere, true).await);
        assert!(is_noticed(Told::PanicInAFuture, true).await);
        assert!(!is_noticed(Told::Nothing, true).await);
        assert!(!is_noticed(Told::Nothing, false).await);
    }
}
