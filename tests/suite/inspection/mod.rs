//! What a developer sees of a running server: its trace as it grows, what each appservice is owed, and what happened to a message.

mod autopsy;
mod fate;
mod ledger;
mod live;
mod page;
