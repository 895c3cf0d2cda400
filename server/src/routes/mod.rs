//! The client-server API, with a file for each section: a route unpacks the request, sends one message to an actor, and packs the
//! reply.

mod account;
mod appservice;
mod backup;
mod bodies;
mod confirmed;
mod cross_signing;
mod devices;
mod directory;
mod discovery;
mod history;
mod keys;
mod membership;
mod observers;
mod presence;
mod profile;
mod push;
mod questions;
mod receipts;
mod register;
mod rooms;
mod search;
mod send;
mod session;
mod spaces;
mod state;
mod sync;
mod third_party;
mod to_device;
mod typing;
mod user_data;

use crate::http::registry::Routes;
use crate::mscs::Msc;

/// All endpoints: those of the sections, of these proposals and, if `dev` is set, of a development server.
#[must_use]
pub fn all(dev: bool, proposals: &[&'static Msc]) -> Routes {
    let sections = [
        session::routes,
        register::routes,
        account::routes,
        devices::routes,
        keys::routes,
        cross_signing::routes,
        backup::routes,
        to_device::routes,
        observers::routes,
        sync::routes,
        rooms::routes,
        membership::routes,
        state::routes,
        send::routes,
        history::routes,
        search::routes,
        spaces::routes,
        directory::routes,
        profile::routes,
        user_data::routes,
        push::routes,
        receipts::routes,
        typing::routes,
        presence::routes,
        third_party::routes,
        discovery::routes,
        appservice::routes,
        crate::operators::routes,
    ];
    let routes = sections
        .into_iter()
        .fold(Routes::default(), |routes, section| section(routes));
    let routes = proposals
        .iter()
        .fold(routes, |routes, msc| (msc.routes)(routes));
    if dev {
        crate::operators::dev_routes(crate::dev::routes(routes))
    } else {
        routes
    }
}
