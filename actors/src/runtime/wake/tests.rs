//! Wake-ups: which senders and clients get one, and up to which position.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::{Actor, Context, Handler};

use super::*;

struct Counter(Arc<AtomicUsize>);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<WakeSender> for Counter {
    type Result = ();

    fn handle(&mut self, _: WakeSender, _: &mut Context<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[actix::test]
async fn a_lost_wake_up_is_sent_after_the_next_commit() {
    let (wake, irc, woken) = (Wake::default(), ServiceId::from("irc"), Arc::default());
    let sender = Counter(Arc::clone(&woken)).start();
    wake.set_sender(irc.clone(), sender.clone().recipient());
    let woken = async || {
        let _ = sender.send(WakeSender::default()).await;
        woken.swap(0, Ordering::Relaxed) - 1
    };
    let owed = OwedServices::from([(irc.clone(), Some(Position(7)))]);
    let senders = wake.senders();
    senders.owed_is_committed(&owed);
    assert_eq!(
        woken().await,
        0,
        "the request that owes it wakes the sender"
    );
    senders.owed_is_committed(&OwedServices::new());
    assert_eq!(woken().await, 1, "it did not");
    senders.owed_is_committed(&owed);
    wake.services([&irc], None);
    senders.owed_is_committed(&OwedServices::new());
    assert_eq!(woken().await, 1, "it did");
}

/// Records the positions of the wake-ups that arrive.
struct Positions(Vec<Option<Position>>);

impl Actor for Positions {
    type Context = Context<Self>;
}

impl Handler<WakeSender> for Positions {
    type Result = ();

    fn handle(&mut self, msg: WakeSender, _: &mut Context<Self>) {
        self.0.push(msg.up_to());
    }
}

#[derive(actix::Message)]
#[rtype(result = "Vec<Option<Position>>")]
struct All;

impl Handler<All> for Positions {
    type Result = Vec<Option<Position>>;

    fn handle(&mut self, _: All, _: &mut Context<Self>) -> Self::Result {
        std::mem::take(&mut self.0)
    }
}

/// After a repeated wake-up, the request behind the earlier commit may wake the sender too. If the sender has looked up to that
/// position by then, it does not look again.
#[actix::test]
async fn a_late_wake_up_says_up_to_where_items_are_owed() {
    let (wake, irc) = (Wake::default(), ServiceId::from("irc"));
    let sender = Positions(Vec::new()).start();
    wake.set_sender(irc.clone(), sender.clone().recipient());
    let senders = wake.senders();
    for up_to in [Some(Position(7)), None] {
        senders.owed_is_committed(&OwedServices::from([(irc.clone(), up_to)]));
        senders.owed_is_committed(&OwedServices::new());
        assert_eq!(sender.send(All).await.ok(), Some(vec![up_to]));
    }
}

/// A sender that has looked up to the position of the earlier commit ignores its wake-up.
#[actix::test]
async fn a_wake_up_for_an_earlier_commit_does_not_replace_that_of_a_later_one() {
    let (wake, irc) = (Wake::default(), ServiceId::from("irc"));
    let sender = Positions(Vec::new()).start();
    wake.set_sender(irc.clone(), sender.clone().recipient());
    let senders = wake.senders();
    let up_to = |n| OwedServices::from([(irc.clone(), Some(Position(n)))]);
    senders.owed_is_committed(&up_to(7));
    senders.owed_is_committed(&up_to(9));
    wake.services([&irc], Some(Position(7)));
    let woken = sender.send(All).await.ok();
    assert_eq!(woken, Some(vec![Some(Position(7))]));
    senders.owed_is_committed(&OwedServices::new());
    let woken = sender.send(All).await.ok();
    assert_eq!(woken, Some(vec![Some(Position(9))]));
}

#[actix::test]
async fn at_most_one_wake_up_is_in_a_mailbox() {
    let (wake, irc, woken) = (Wake::default(), ServiceId::from("irc"), Arc::default());
    let sender = Counter(Arc::clone(&woken)).start();
    wake.set_sender(irc.clone(), sender.clone().recipient());
    for _ in 0..100 {
        wake.services([&irc], None);
    }
    let _ = sender.send(WakeSender::default()).await;
    assert_eq!(woken.swap(0, Ordering::Relaxed), 2);
    wake.services([&irc], None);
    let _ = sender.send(WakeSender::default()).await;
    assert_eq!(woken.load(Ordering::Relaxed), 2, "the first was taken");
}

#[actix::test]
async fn a_held_service_is_woken_once_and_by_the_line_that_holds_it() {
    let (wake, irc, woken) = (Wake::default(), ServiceId::from("irc"), Arc::default());
    let sender = Counter(Arc::clone(&woken)).start();
    wake.set_sender(irc.clone(), sender.clone().recipient());
    let woken = async || {
        // This message is queued behind all earlier ones, so they have been handled when it is answered.
        let _ = sender.send(WakeSender::default()).await;
        woken.swap(0, Ordering::Relaxed) - 1
    };
    wake.pass_has_read(Position(4));
    wake.hold(&irc, Position(9));
    wake.pass_has_read(Position(5));
    wake.pass_has_read(Position(8));
    assert_eq!(woken().await, 0, "other lines do not concern it");
    assert!(wake.is_open(Position(9)));
    wake.pass_has_read(Position(9));
    assert!(!wake.is_open(Position(9)));
    wake.pass_has_read(Position(12));
    assert_eq!(woken().await, 1);
    wake.hold(&irc, Position(11));
    assert_eq!(woken().await, 1, "the pass was faster than the sender");
}
