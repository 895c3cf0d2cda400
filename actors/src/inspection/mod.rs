//! What a developer asks of a running development server: what each appservice is owed, what happened to an item, and why a device
//! cannot decrypt an event. Reads only, from the database and from the history; nothing else depends on it.

mod autopsy;
mod devices;
mod fate;
mod services;
mod steps;
mod traced;

pub use autopsy::{Autopsy, Undecryptable, autopsy};
pub use devices::{After, Page, inboxes, keys, tracked};
pub use fate::{About, Fate, Verdict, fate};
pub use services::{Queue, queues};
pub use steps::Step;
