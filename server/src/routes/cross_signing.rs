//! Cross-signing keys and signatures.

use std::collections::BTreeMap;

use actors::accounts::Confirm;
use actors::ask;
use actors::key_store::{SigningUploaded, UploadSignatures, UploadSigning};
use ruma::api::client::keys::{upload_signatures, upload_signing_keys};
use ruma::serde::Raw;
use serde::Serialize;
use serde_json::Value;

use super::confirmed::{self, Confirmed};
use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::{Result, refusal_body};
use crate::http::limits::LARGE_BODY;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.on(upload).on_json(upload_signed).takes(LARGE_BODY)
}

/// Upload cross-signing keys. Keys that replace an existing master key need user-interactive authentication: if `key_store` finds
/// the keys to be new, the request is sent again once `accounts` has confirmed it.
///
/// `POST /_matrix/client/*/keys/device_signing/upload` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload
async fn upload(
    app: App,
    caller: Caller,
    Confirmed { auth, request }: Confirmed<upload_signing_keys::v3::Request>,
) -> Result<upload_signing_keys::v3::Response> {
    let who = caller.identity()?.clone();
    let mut upload = UploadSigning {
        from: who.clone(),
        confirmed: false,
        master_key: request.master_key.map(Raw::into_json),
        self_signing_key: request.self_signing_key.map(Raw::into_json),
        user_signing_key: request.user_signing_key.map(Raw::into_json),
    };
    let outcome = ask(&app.actors.key_store, upload.clone()).await?;
    if outcome == SigningUploaded::MustBeConfirmed {
        let confirm = Confirm {
            who,
            operation: "upload cross-signing keys".to_owned(),
            auth: auth.clone(),
        };
        let asked = ask(&app.actors.accounts, confirm);
        confirmed::tried(&caller, auth.as_ref(), asked).await?;
        upload.confirmed = true;
        ask(&app.actors.key_store, upload).await?;
    }
    Ok(upload_signing_keys::v3::Response::new())
}

/// Upload signatures over devices and master keys.
///
/// `POST /_matrix/client/*/keys/signatures/upload` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload
async fn upload_signed(
    app: App,
    caller: Caller,
    request: upload_signatures::v3::Request,
) -> Result<Json> {
    #[derive(Serialize)]
    struct Answer {
        failures: BTreeMap<ruma::OwnedUserId, BTreeMap<String, Value>>,
    }
    let signed = |(user, keys): (_, upload_signatures::v3::SignedKeys)| {
        let keys = keys.iter();
        let keys = keys.map(|(key, object)| (key.to_owned(), object.to_owned()));
        (user, keys.collect())
    };
    let upload = UploadSignatures {
        from: caller.identity()?.clone(),
        signed: request.signed_keys.into_iter().map(signed).collect(),
    };
    let failures = ask(&app.actors.key_store, upload).await?;
    let shown = |(user, keys): (_, BTreeMap<String, actors::Refusal>)| {
        let keys = keys.iter();
        let keys = keys.map(|(key, why)| (key.clone(), refusal_body(why)));
        (user, keys.collect())
    };
    Json::write(&Answer {
        failures: failures.into_iter().map(shown).collect(),
    })
}
