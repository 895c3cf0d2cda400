//! The data sheet of a proposal.

use actors::key_proxy::{ClaimProxy, QueryProxy};
use actors::services::Proposals;
use actors::wire::{Body, FindDeviceSigner, Name, Pending};

use crate::http::registry::Routes;

/// Everything a proposal may touch. Fields left at [`Msc::NONE`] cost nothing.
pub struct Msc {
    /// Its number.
    pub number: u16,
    /// Its title.
    pub title: &'static str,
    /// Whether it is on unless the operator says otherwise.
    pub by_default: bool,
    /// What it switches on below the server: what services are owed.
    pub switches: fn(&mut Proposals),
    /// The keys of a registration that ask for it.
    pub registration: &'static [&'static str],
    /// What it adds to `unstable_features` of `GET /versions`.
    pub flags: &'static [&'static str],
    /// Every name that it puts on the wire.
    pub names: &'static [Name],
    /// Extra endpoints.
    pub routes: fn(Routes) -> Routes,
    /// Extra keys in transactions to application services.
    pub transaction: fn(&Pending, &mut Body),
    /// Which device of another user signs for a device.
    pub device_signer: Option<FindDeviceSigner>,
    /// What services are asked when a one-time key is claimed and none is stored.
    pub claim_proxy: Option<ClaimProxy>,
    /// What services are asked when keys are queried.
    pub query_proxy: Option<QueryProxy>,
}

impl Msc {
    /// A proposal that does nothing.
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
