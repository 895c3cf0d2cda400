//! Copies of a database in memory, and putting one of them back: `server/src/restore.rs` does it.

use actors::Refusal;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::{Error, Result};
use crate::http::incoming::Raw;
use crate::state::{App, DatabaseOrder};

/// Keep a copy of the database: `POST /_understudy/snapshot` answers `{"id": "1"}`.
pub(super) async fn snapshot(app: App, _: Caller, _: Raw) -> Result<Json> {
    let id = order(orders(&app)?, DatabaseOrder::Copy).await??;
    Json::write(&json!({"id": id.to_string()}))
}

/// Put the database back as it was when the server became ready: `POST /_understudy/reset`.
pub(super) async fn reset(app: App, _: Caller, _: Raw) -> Result<Json> {
    put_back(app, None).await
}

#[derive(Deserialize)]
struct RestoreRequest {
    id: String,
}

/// Put a copy of the database back: `POST /_understudy/restore` with `{"id": "1"}`.
pub(super) async fn restore(app: App, _: Caller, request: Raw) -> Result<Json> {
    let RestoreRequest { id } = request.json()?;
    let none = || Refusal::NotFound("there is no such snapshot".into());
    put_back(app, Some(id.parse().map_err(|_| none())?)).await
}

async fn put_back(app: App, id: Option<u64>) -> Result<Json> {
    let orders = orders(&app)?;
    // What replaces the state waits until no request uses it.
    drop(app);
    order(orders, |done| DatabaseOrder::Restore(id, done)).await??;
    Json::write(&json!({}))
}

type Orders = mpsc::UnboundedSender<DatabaseOrder>;

fn orders(app: &App) -> Result<Orders> {
    let why = "this needs a server that was started with --database :memory:";
    let orders = app.orders();
    orders.ok_or_else(|| Refusal::Forbidden(why.into()).into())
}

async fn order<T>(
    orders: Orders,
    order: impl FnOnce(oneshot::Sender<T>) -> DatabaseOrder,
) -> Result<T> {
    let (done, answer) = oneshot::channel();
    let ended = || Error::Busy("the server is stopping");
    orders.send(order(done)).map_err(|_| ended())?;
    answer.await.map_err(|_| ended())
}
