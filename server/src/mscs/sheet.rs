//! The data sheet of a proposal.

use actors::hooks::ProposalHooks;
use actors::key_proxy::{ClaimProxy, QueryProxy};
use actors::services::Proposals;
use actors::wire::Name;
use serde_json::Value;

use crate::http::registry::Routes;

/// Everything that a proposal may change. Fields left at [`Msc::NONE`] cost nothing.
pub struct Msc {
    /// The title of the proposal. Its number is that of its hooks.
    pub title: &'static str,
    /// The version of the specification that contains the proposal, such as `v1.17`. It is then on unless a list takes it out.
    pub specified: Option<&'static str>,
    /// Whether the proposal is switched on by default.
    pub by_default: bool,
    /// Sets the switches of the actors: which of their own kinds of data appservices are owed.
    pub switches: fn(&mut Proposals),
    /// The registration keys with which an appservice asks for the proposal.
    pub registration: &'static [&'static str],
    /// What the proposal adds to `unstable_features` of `GET /versions`.
    pub flags: &'static [&'static str],
    /// What the proposal adds to `capabilities` of `GET /capabilities`.
    pub capabilities: fn() -> Vec<(&'static str, Value)>,
    /// All names that the proposal adds to the wire.
    pub names: &'static [Name],
    /// Adds endpoints, and code around existing ones.
    pub routes: fn(Routes) -> Routes,
    /// What actors call: parts of writes, sections of transactions and of `/sync`, checks, timers.
    pub hooks: ProposalHooks,
    /// Asks appservices for a one-time key when none is stored.
    pub claim_proxy: Option<ClaimProxy>,
    /// Asks appservices when keys are queried.
    pub query_proxy: Option<QueryProxy>,
}

impl Msc {
    /// A proposal that changes nothing: the defaults of the other sheets.
    pub const NONE: Msc = Msc {
        title: "",
        specified: None,
        by_default: false,
        switches: |_| {},
        registration: &[],
        flags: &[],
        capabilities: Vec::new,
        names: &[],
        routes: |r| r,
        hooks: ProposalHooks::NONE,
        claim_proxy: None,
        query_proxy: None,
    };

    /// The number of the proposal.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.hooks.number
    }
}
