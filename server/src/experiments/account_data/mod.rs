//! `account_data` — account data for application services. An experiment without a proposal.
//!
//! | on the wire | |
//! |---|---|
//! | `org.understudy.account_data` | a list of `{"user_id", "room_id", "type", "content"}`; no `room_id` where it is not for a room |
//!
//! *Where* `PUT /_matrix/app/v1/transactions/{txnId}`. *Registration* `org.understudy.account_data: true`. *Server*
//! `experiments = ["account_data"]` or `--enable-experiment account_data`.
//!
//! An appservice receives the account data of its own users only: its sender, and the users in its exclusive namespaces. Each item
//! is the latest content of one type; several changes before a delivery are sent as one. The read marker and push rules are account
//! data too. Changes that the appservice made itself are sent as well, as its own events are. Account data from before the
//! experiment was switched on is not sent; `GET /user/{userId}/account_data/{type}` reads it.

use actors::services::{AccountDataKind, NamespaceClaim};
use actors::wire::{TransactionBody, TransactionContent};
use serde::Serialize;
use serde_json::value::RawValue;

use super::sheet::Experiment;

/// The data sheet of this experiment: its name and what it does.
pub const EXPERIMENT: Experiment = Experiment {
    name: "account_data",
    title: "Account data for appservices",
    switches: |on| on.account_data = Some(&OWED),
    registration: &[ACCOUNT_DATA],
    names: &[ACCOUNT_DATA],
    transaction: add_account_data,
};

const ACCOUNT_DATA: &str = "org.understudy.account_data";

// ANCHOR: owed
/// Account data belongs to a user's own clients, so an appservice receives it only for users that are exclusively its own.
static OWED: AccountDataKind = AccountDataKind {
    kind: "account_data",
    is_wanted: |registration| registration.has_flag(ACCOUNT_DATA),
    is_sent: NamespaceClaim::is_exclusive,
};
// ANCHOR_END: owed

/// An item of account data as it is sent.
#[derive(Serialize)]
struct Piece<'a> {
    user_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    room_id: &'a str,
    r#type: &'a str,
    content: &'a RawValue,
}

// ANCHOR: add
fn add_account_data(content: &TransactionContent, body: &mut TransactionBody) {
    let owed = content.others.get(OWED.kind).into_iter().flatten();
    let pieces = owed.filter_map(|item| {
        let [user_id, room_id, r#type] = item.key.as_slice() else {
            return None;
        };
        Some(Piece {
            user_id,
            room_id,
            r#type,
            content: &item.value,
        })
    });
    let pieces: Vec<Piece<'_>> = pieces.collect();
    if !pieces.is_empty() {
        body.put_always(ACCOUNT_DATA, &pieces);
    }
}
// ANCHOR_END: add
