//! What the endpoints of a proposal store and read.

use actors::ask;
use actors::hooks::{AT_ONCE, Part, Stored, after_prefix};
use actors::proposals::WritePart;
use actors::wire::Name;
use schema::scratch;
use serde_json::Value;

use super::sheet::Msc;
use crate::http::error::Result;
use crate::state::App;

/// Run part of a write for an endpoint of a proposal. Answers what the part answers, once it is committed. `about` shows in the
/// trace.
///
/// # Errors
/// Those of the part.
pub async fn write(
    app: &App,
    msc: &Msc,
    about: Value,
    run: impl Fn(&mut Part<'_, '_>) -> actors::Result<Value> + Send + 'static,
) -> Result<Value> {
    let message = WritePart {
        number: msc.number(),
        about,
        run: Box::new(run),
    };
    Ok(ask(&app.actors.proposals, message).await?)
}

/// The forms of a name that the operator has chosen for the proposal (`msc_names`), for the keys of requests and answers. Sections of
/// transactions and of `/sync` are written in these forms by the server.
pub fn forms(app: &App, msc: &Msc, name: Name) -> impl Iterator<Item = &'static str> {
    app.actors.env.hooks.naming(msc.number()).forms(name)
}

/// The value that a proposal has stored under a key.
///
/// # Errors
/// The database fails.
pub async fn stored(app: &App, msc: &Msc, key: String) -> Result<Option<Stored>> {
    let number = msc.number();
    let row = app
        .actors
        .env
        .store
        .read(move |db| scratch::get(db, number, &key));
    Ok(row.await?.map(Stored::from))
}

/// The values that a proposal has stored under keys that begin with `prefix`, in the order of the keys.
///
/// # Errors
/// The database fails.
pub async fn stored_in(app: &App, msc: &Msc, prefix: String) -> Result<Vec<Stored>> {
    let number = msc.number();
    let rows = app.actors.env.store.read(move |db| {
        let end = after_prefix(&prefix);
        scratch::range(db, number, &prefix, &end, AT_ONCE)
    });
    Ok(rows.await?.into_iter().map(Stored::from).collect())
}
