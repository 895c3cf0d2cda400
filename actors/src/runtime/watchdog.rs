//! Ends the process when an actor dies. A restart loses no data; without the restart, the messages to the dead actor would be
//! lost.
//!
//! actix does not restart an actor that has panicked, in a handler or in a future that it spawned. The death of an actor that
//! answers requests shows in the next request. The death of an actor that only receives notifications would not show.

use std::sync::Arc;

use actix::{Actor, AsyncContext, Context};
use tokio::sync::oneshot;

use crate::Env;

/// A field of an actor, dropped together with it.
#[derive(Default)]
pub(crate) struct Watchdog(Option<oneshot::Sender<()>>);

impl Watchdog {
    /// End the process if this actor dies before the server shuts down. The actor calls this when it starts.
    pub(crate) fn watch<A>(&mut self, ctx: &mut Context<A>, env: &Env, name: &'static str)
    where
        A: Actor<Context = Context<A>>,
    {
        let fatal = Arc::clone(&env.fatal);
        self.watch_until(ctx, env.stopping.stopped(), move || {
            fatal(&format!("the actor {name} has died"));
        });
    }

    fn watch_until<A>(
        &mut self,
        ctx: &mut Context<A>,
        stopped: impl Future<Output = ()> + 'static,
        died: impl FnOnce() + 'static,
    ) where
        A: Actor<Context = Context<A>>,
    {
        let (alive, dropped) = oneshot::channel();
        self.0 = Some(alive);
        // An actor stops when its last address is dropped. This address prevents that, so that a stop is always a death.
        let address = ctx.address();
        actix_rt::spawn(async move {
            tokio::select! {
                biased;
                () = stopped => {}
                // The channel closes without a value: nothing is ever sent.
                _ = dropped => died(),
            }
            drop(address);
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
        stopped: Option<oneshot::Receiver<()>>,
        watchdog: Watchdog,
    }

    impl Actor for Mortal {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Context<Self>) {
            let died = Rc::clone(&self.died);
            let stopped = self.stopped.take().expect("it starts once");
            let stopped = async move { drop(stopped.await) };
            self.watchdog
                .watch_until(ctx, stopped, move || died.set(true));
        }
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    enum Event {
        Nothing,
        PanicHere,
        PanicInAFuture,
    }

    impl Handler<Event> for Mortal {
        type Result = ();

        fn handle(&mut self, event: Event, ctx: &mut Context<Self>) {
            match event {
                Event::Nothing => {}
                Event::PanicHere => panic!("in a handler"),
                Event::PanicInAFuture => {
                    ctx.spawn(async { panic!("in a future") }.into_actor(self));
                }
            }
        }
    }

    async fn let_others_run() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Whether the death of an actor that received this message is noticed. There is no other address of the actor.
    async fn is_noticed(event: Event, stop_first: bool) -> bool {
        let died = Rc::new(Cell::new(false));
        let (stop, stopped) = oneshot::channel();
        let mortal = Mortal {
            died: Rc::clone(&died),
            stopped: Some(stopped),
            watchdog: Watchdog::default(),
        };
        let address = mortal.start();
        if stop_first {
            stop.send(()).expect("it waits");
            let_others_run().await;
            address.try_send(event).expect("room in the mailbox");
            drop(address);
            let_others_run().await;
            assert_eq!(Rc::strong_count(&died), 1, "the actor is gone");
        } else {
            address.try_send(event).expect("room in the mailbox");
            drop(address);
            let_others_run().await;
            drop(stop);
        }
        died.get()
    }

    #[actix_rt::test]
    async fn the_death_of_an_actor_is_noticed_and_a_shutdown_is_not_a_death() {
        assert!(is_noticed(Event::PanicHere, false).await);
        assert!(is_noticed(Event::PanicInAFuture, false).await);
        assert!(!is_noticed(Event::Nothing, false).await);
        assert!(!is_noticed(Event::PanicHere, true).await);
        assert!(!is_noticed(Event::Nothing, true).await);
    }
}
