//! MSC4190 — device management for application services. ([proposal]) Accepted; part of the specification since v1.17.
//!
//! | error code until it is accepted | after |
//! |---|---|
//! | `IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED` | `M_APPSERVICE_LOGIN_UNSUPPORTED` |
//!
//! *Where* `PUT /devices/{deviceId}` creates a device for a user of the appservice; `DELETE /devices/{deviceId}`,
//! `POST /delete_devices` and `POST /keys/device_signing/upload` need no confirmation from an appservice. *Registration*
//! `io.element.msc4190: true` says that the appservice does not log in: `POST /login`, and `POST /register` without
//! `inhibit_login`, are refused. *Versions* no flag.
//!
//! [proposal]: https://github.com/matrix-org/matrix-spec-proposals/pull/4190

use actors::hooks::ProposalHooks;
use actors::wire::Name;

use super::sheet::Msc;

/// The data sheet of this proposal: its number, title, link and names.
pub const MSC: Msc = Msc {
    title: "Device management for application services",
    names: &[LOGIN_UNSUPPORTED],
    switches: |on| on.manages_devices = true,
    registration: &["io.element.msc4190"],
    specified: Some("v1.17"),
    routes: |routes| routes.error(LOGIN_UNSUPPORTED),
    hooks: ProposalHooks {
        number: 4190,
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const LOGIN_UNSUPPORTED: Name = Name {
    unstable: "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED",
    stable: "M_APPSERVICE_LOGIN_UNSUPPORTED",
};
