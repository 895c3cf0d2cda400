//! Wake-ups: which senders and clients get one, and up to which position.

use actix::{Actor, Addr, Context, Handler};

use super::*;

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

/// The sender of irc, and what wakes it.
fn irc() -> (Wake, ServiceId, TestSender) {
    let (wake, irc) = (Wake::default(), ServiceId::from("irc"));
    let sender = Positions(Vec::new()).start();
    wake.set_sender(irc.clone(), sender.clone().recipient());
    (wake, irc, TestSender(sender))
}

struct TestSender(Addr<Positions>);

impl TestSender {
    /// The positions of the wake-ups since the last call. [`All`] is queued behind all of them, so none is missing.
    async fn woken(&self) -> Vec<Option<Position>> {
        self.0.send(All).await.expect("it lives")
    }
}

fn owed(irc: &ServiceId, up_to: Option<Position>) -> OwedServices {
    OwedServices::from([(irc.clone(), up_to)])
}

#[actix::test]
async fn a_lost_wake_up_is_sent_after_the_next_commit() {
    let (wake, irc, sender) = irc();
    let (owed, senders) = (owed(&irc, Some(Position(7))), wake.senders());
    senders.owed_is_committed(&owed);
    let woken = sender.woken().await;
    assert_eq!(woken, [], "the request that owes it wakes the sender");
    senders.owed_is_committed(&OwedServices::new());
    assert_eq!(sender.woken().await.len(), 1, "it did not");
    senders.owed_is_committed(&owed);
    wake.services([&irc], None);
    senders.owed_is_committed(&OwedServices::new());
    assert_eq!(sender.woken().await.len(), 1, "it did");
}

/// After a repeated wake-up, the request behind the earlier commit may wake the sender too. If the sender has looked up to that
/// position by then, it does not look again.
#[actix::test]
async fn a_late_wake_up_says_up_to_where_items_are_owed() {
    let (wake, irc, sender) = irc();
    let senders = wake.senders();
    for up_to in [Some(Position(7)), None] {
        senders.owed_is_committed(&owed(&irc, up_to));
        senders.owed_is_committed(&OwedServices::new());
        assert_eq!(sender.woken().await, [up_to]);
    }
}

/// A sender that has looked up to the position of the earlier commit ignores its wake-up.
#[actix::test]
async fn a_wake_up_for_an_earlier_commit_does_not_replace_that_of_a_later_one() {
    let (wake, irc, sender) = irc();
    let senders = wake.senders();
    senders.owed_is_committed(&owed(&irc, Some(Position(7))));
    senders.owed_is_committed(&owed(&irc, Some(Position(9))));
    wake.services([&irc], Some(Position(7)));
    assert_eq!(sender.woken().await, [Some(Position(7))]);
    senders.owed_is_committed(&OwedServices::new());
    assert_eq!(sender.woken().await, [Some(Position(9))]);
}

#[actix::test]
async fn at_most_one_wake_up_is_in_a_mailbox() {
    let (wake, irc, sender) = irc();
    for _ in 0..100 {
        wake.services([&irc], None);
    }
    assert_eq!(sender.woken().await.len(), 1);
    wake.services([&irc], None);
    assert_eq!(sender.woken().await.len(), 1, "the first was taken");
}

#[actix::test]
async fn a_held_service_is_woken_once_and_by_the_line_that_holds_it() {
    let (wake, irc, sender) = irc();
    wake.pass_has_read(Position(4));
    wake.hold(&irc, Position(9));
    wake.pass_has_read(Position(5));
    wake.pass_has_read(Position(8));
    assert_eq!(sender.woken().await, [], "other lines do not concern it");
    assert!(wake.is_open(Position(9)));
    wake.pass_has_read(Position(9));
    assert!(!wake.is_open(Position(9)));
    wake.pass_has_read(Position(12));
    assert_eq!(sender.woken().await.len(), 1);
    wake.hold(&irc, Position(11));
    let woken = sender.woken().await;
    assert_eq!(woken.len(), 1, "the pass was faster than the sender");
}
