//! The hooks of a proposal for keys that appservices keep: the request to an appservice, and which parts of its answer can be
//! used.

use std::collections::BTreeSet;

use ruma::OwnedUserId;

use crate::key_store::queries::UserKeys;
use crate::key_store::{OneTimeKeys, Wanted};

/// Which appservices are asked, and where.
#[derive(Debug, Clone, Copy)]
pub struct Proxy {
    /// The registration key that opts in with `true`.
    pub opt_in: &'static str,
    /// The path of the request.
    pub endpoint: &'static str,
}

/// The usable part of an answer, and why the rest was dropped.
#[derive(Debug, Default)]
pub struct ReadAnswer<T> {
    /// The usable part.
    pub usable: T,
    /// The reasons for the dropped parts, one line each.
    pub dropped: Vec<String>,
}

/// How appservices are asked for one-time keys.
#[derive(Debug, Clone, Copy)]
pub struct ClaimProxy {
    /// Which appservices, and where.
    pub proxy: Proxy,
    /// The body of the request for the wanted keys.
    pub ask: fn(&Wanted) -> String,
    /// The usable part of the answer, given the wanted keys, the stored keys of the devices, and the answer.
    pub read: fn(&Wanted, &UserKeys, &str) -> ReadAnswer<OneTimeKeys>,
}

/// How appservices are asked for the keys of users.
#[derive(Debug, Clone, Copy)]
pub struct QueryProxy {
    /// Which appservices, and where.
    pub proxy: Proxy,
    /// The body of the request for the keys of all devices of these users.
    pub ask: fn(&BTreeSet<OwnedUserId>) -> String,
    /// The usable part of the answer.
    pub read: fn(&BTreeSet<OwnedUserId>, &str) -> ReadAnswer<UserKeys>,
}

/// The hooks of the enabled proposals for claims and queries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Proxies {
    /// The hook for claims, if there is one.
    pub claim: Option<ClaimProxy>,
    /// The hook for queries, if there is one.
    pub query: Option<QueryProxy>,
}
