//! The data sheet of a proposal.

use actors::key_proxy::{ClaimProxy, QueryProxy};
use actors::services::Proposals;
use actors::wire::{FindDeviceSigner, Name, TransactionBody, TransactionContent};

use crate::http::registry::Routes;

/// Everything that a proposal may change. Fields left at [`Msc::NONE`] cost nothing.
pub struct Msc {
    /// The number of the proposal.
    pub number: u16,
    /// The title of the proposal.
    pub title: &'static str,
    /// Whether the proposal is switched on by default.
    pub by_default: bool,
    /// Sets the switches of the actors: which kinds of data appservices are owed.
    pub switches: fn(&mut Proposals),
    /// The registration keys with which an appservice asks for the proposal.
    pub registration: &'static [&'static str],
    /// What the proposal adds to `unstable_features` of `GET /versions`.
    pub flags: &'static [&'static str],
    /// All names that the proposal adds to the wire.
    pub names: &'static [Name],
    /// Adds the endpoints of the proposal.
    pub routes: fn(Routes) -> Routes,
    /// Extra keys in transactions to application services.
    pub transaction: fn(&TransactionContent, &mut TransactionBody),
    /// Finds the device of another user that signs for a device.
    pub device_signer: Option<FindDeviceSigner>,
    /// Asks appservices for a one-time key when none is stored.
    pub claim_proxy: Option<ClaimProxy>,
    /// Asks appservices when keys are queried.
    pub query_proxy: Option<QueryProxy>,
}

impl Msc {
    /// A proposal that changes nothing: the defaults of the other sheets.
    pub const NONE: Msc = Msc {
        number: 0,
        title: "",
        by_default: true,
        switches: |_| {},
        registration: &[],
        flags: &[],
        names: &[],
        routes: |r| r,
        transaction: |_, _| {},
        device_signer: None,
        claim_proxy: None,
        query_proxy: None,
    };
}
