//! Uploading, querying and claiming device keys.
//!
//! Next on the way of a claim: `actors/src/key_proxy/claim.rs`.

use std::collections::BTreeMap;

use actors::key_proxy::queries::{concerns_claim, concerns_query};
use actors::key_store::queries::{UserKeys, query_keys};
use actors::key_store::{self, OneTimeKeys, Upload};
use actors::{ask, key_proxy};
use ruma::OwnedOneTimeKeyId;
use ruma::api::client::keys::{claim_keys, get_keys, upload_keys};
use ruma::encryption::OneTimeKey;
use ruma::serde::Raw;
use serde::Serialize;
use serde_json::value::RawValue;

use super::questions;
use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::limits::LARGE_BODY;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on(upload)
        .takes(LARGE_BODY)
        .on_json(query)
        .reads()
        .takes(LARGE_BODY)
        .on_json(claim)
        .takes(LARGE_BODY)
}

/// Upload identity keys, one-time keys and fallback keys of the caller's device.
///
/// `POST /_matrix/client/*/keys/upload` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload
async fn upload(
    app: App,
    caller: Caller,
    request: upload_keys::v3::Request,
) -> Result<upload_keys::v3::Response> {
    let upload = Upload {
        from: caller.identity()?.clone(),
        device_keys: request.device_keys.map(Raw::into_json),
        one_time_keys: bytes(request.one_time_keys),
        fallback_keys: bytes(request.fallback_keys),
    };
    let counts = ask(&app.actors.key_store, upload).await?;
    Ok(upload_keys::v3::Response::new(counts))
}

fn bytes(
    keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
) -> BTreeMap<OwnedOneTimeKeyId, Box<RawValue>> {
    keys.into_iter()
        .map(|(id, key)| (id, key.into_json()))
        .collect()
}

/// The servers that could not be reached: always none, in a key that some clients require.
#[derive(Serialize)]
struct Failures {}

/// Query the keys of users and their devices.
///
/// `POST /_matrix/client/*/keys/query` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
async fn query(app: App, caller: Caller, request: get_keys::v3::Request) -> Result<Json> {
    #[derive(Serialize)]
    struct Answer {
        #[serde(flatten)]
        keys: UserKeys,
        failures: Failures,
    }
    let reader = caller.identity()?;
    let users = request.device_keys.keys().map(|user| &**user);
    questions::about_users(&app, &caller, users).await?;
    let (actors, queried) = (&app.actors, request.device_keys);
    let keys = if concerns_query(&actors.env, actors.key_proxies, reader, &queried) {
        let query = key_proxy::Query::new(reader.clone(), queried);
        let pending = ask(&actors.key_proxy, query).await?;
        app.outside(pending.keys()).await?
    } else {
        query_keys(&actors.env, reader, queried).await?
    };
    Json::write(&Answer {
        keys,
        failures: Failures {},
    })
}

/// Claim a one-time key, or else the fallback key, of each of these devices.
///
/// `POST /_matrix/client/*/keys/claim` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim
// ANCHOR: claim
async fn claim(app: App, caller: Caller, request: claim_keys::v3::Request) -> Result<Json> {
    #[derive(Serialize)]
    struct Answer {
        one_time_keys: OneTimeKeys,
        failures: Failures,
    }
    let claimer = caller.identity()?;
    let wanted = caller.limit_claims(request.one_time_keys)?;
    let users = wanted.keys().map(|user| &**user);
    questions::about_users(&app, &caller, users).await?;
    let actors = &app.actors;
    let one_time_keys = if concerns_claim(&actors.env, actors.key_proxies, claimer, &wanted) {
        let claim = key_proxy::Claim::new(claimer.clone(), wanted);
        let pending = ask(&actors.key_proxy, claim).await?;
        app.outside(pending.keys()).await?
    } else {
        let or_fallback = true;
        let claim = key_store::Claim {
            wanted,
            or_fallback,
        };
        ask(&actors.key_store, claim).await?.one_time_keys
    };
    Json::write(&Answer {
        one_time_keys,
        failures: Failures {},
    })
}
// ANCHOR_END: claim
