//! What a proposal says of a key proxy: what a service is asked, and what of its answer is used.

use std::collections::BTreeSet;

use ruma::OwnedUserId;

use crate::key_store::queries::UserKeys;
use crate::key_store::{OneTimeKeys, Wanted};

/// Which services are asked, and where.
#[derive(Debug, Clone, Copy)]
pub struct Proxy {
    /// The key of a registration that opts in with `true`.
    pub opt_in: &'static str,
    /// The path of the question.
    pub endpoint: &'static str,
}

/// What can be used of an answer, and why the rest cannot.
#[derive(Debug, Default)]
pub struct Read<T> {
    /// What can be used.
    pub said: T,
    /// What was dropped: a line each.
    pub dropped: Vec<String>,
}

/// How services are asked for one-time keys.
#[derive(Debug, Clone, Copy)]
pub struct ClaimProxy {
    /// Which services, and where.
    pub proxy: Proxy,
    /// The question.
    pub ask: fn(&Wanted) -> String,
    /// What of the answer can be used: by what was asked, and the stored keys of the devices.
    pub read: fn(&Wanted, &UserKeys, &str) -> Read<OneTimeKeys>,
}

/// How services are asked for the keys of users.
#[derive(Debug, Clone, Copy)]
pub struct QueryProxy {
    /// Which services, and where.
    pub proxy: Proxy,
    /// The question about all devices of these users.
    pub ask: fn(&BTreeSet<OwnedUserId>) -> String,
    /// What of the answer can be used.
    pub read: fn(&BTreeSet<OwnedUserId>, &str) -> Read<UserKeys>,
}

/// What the proposals that are on say of claims and of queries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Proxies {
    /// For claims, if a proposal says something.
    pub claim: Option<ClaimProxy>,
    /// For queries, if a proposal says something.
    pub query: Option<QueryProxy>,
}
