//! Requests that need user-interactive authentication, with the `auth` they carry. ([spec])
//!
//! `auth` is parsed by hand, because ruma rejects an empty one, one with only a session, and the `user` that clients sent before
//! identifiers existed.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api

use std::collections::BTreeMap;

use actors::Secret;
use actors::accounts::{AuthData, AuthStage};
use ruma::api::IncomingRequest;
use ruma::api::error::DeserializationError;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::bodies::same_endpoint;
use crate::http::caller::Caller;
use crate::http::error::Result;

/// A request and its `auth`.
pub(super) struct Confirmed<R> {
    pub(super) auth: Option<AuthData>,
    pub(super) request: R,
}
same_endpoint!(Confirmed);

impl<R: IncomingRequest> IncomingRequest for Confirmed<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path: &[&str],
    ) -> std::result::Result<Self, DeserializationError> {
        let body: &[u8] = match request.body() {
            [] => b"{}",
            body => body,
        };
        let mut keys: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body)?;
        let auth = keys.remove("auth");
        let rest = serde_json::to_string(&keys)?;
        let auth = match auth {
            Some(auth) => read(&auth, &rest)?,
            None => None,
        };
        let request = request.map(|_| rest.as_bytes());
        let request = R::try_from_http_request_inner(request, path)?;
        Ok(Confirmed { auth, request })
    }
}

/// The keys of `auth` that are read.
#[derive(Deserialize)]
struct AuthObject {
    #[serde(rename = "type")]
    kind: Option<String>,
    session: Option<String>,
    identifier: Option<Identifier>,
    user: Option<String>,
    password: Option<String>,
}

#[derive(Deserialize)]
struct Identifier {
    #[serde(rename = "type")]
    kind: String,
    user: Option<String>,
}

/// An `auth` with neither a stage nor a session counts as absent.
fn read(auth: &RawValue, rest: &str) -> serde_json::Result<Option<AuthData>> {
    let Some(object) = serde_json::from_str::<Option<AuthObject>>(auth.get())? else {
        return Ok(None);
    };
    let stage = match object.kind.as_deref() {
        None if object.session.is_none() => return Ok(None),
        None => AuthStage::Poll,
        Some("m.login.dummy") => AuthStage::Dummy,
        Some("m.login.password") => by_password(object.identifier, object.user, object.password)?,
        Some(_) => AuthStage::Other,
    };
    Ok(Some(AuthData {
        session: object.session,
        stage,
        request: Secret::from(rest),
    }))
}

fn by_password(
    identifier: Option<Identifier>,
    user: Option<String>,
    password: Option<String>,
) -> serde_json::Result<AuthStage> {
    let missing = |field| serde_json::Error::missing_field(field);
    let user = match identifier {
        Some(Identifier { kind, user }) if kind == "m.id.user" => {
            user.ok_or_else(|| missing("user"))?
        }
        Some(_) => return Ok(AuthStage::ThirdPartyPassword),
        None => user.ok_or_else(|| missing("identifier"))?,
    };
    let password = password.ok_or_else(|| missing("password"))?;
    Ok(AuthStage::Password {
        user,
        password: password.into(),
    })
}

/// Send a message that needs confirmation to `accounts`. A password in it counts as an attempt to log in to the caller's account.
pub(super) async fn tried<T>(
    caller: &Caller,
    auth: Option<&AuthData>,
    asked: impl Future<Output = actors::Result<T>>,
) -> Result<T> {
    match auth.map(|auth| &auth.stage) {
        Some(AuthStage::Password { .. }) => {
            let user = caller.identity()?.user.as_str();
            caller.try_password(user, asked).await
        }
        _ => Ok(asked.await?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;

    fn parsed(auth: &Value) -> std::result::Result<Option<AuthData>, String> {
        let auth = to_raw_value(auth).expect("JSON");
        read(&auth, "{}").map_err(|e| e.to_string())
    }

    #[test]
    fn what_clients_send_as_auth() {
        let by = |who: Value| {
            let mut auth =
                json!({"type": "m.login.password", "password": "secret", "session": "s"});
            for (key, value) in who.as_object().expect("an object") {
                auth[key] = value.clone();
            }
            auth
        };
        let cases = [
            (json!({}), "None"),
            (Value::Null, "None"),
            (json!({"session": null}), "None"),
            (json!({"example": 1}), "None"),
            (json!({"session": "s"}), "Poll"),
            (json!({"type": "m.login.dummy"}), "Dummy"),
            (json!({"type": "m.login.dummy", "session": "s"}), "Dummy"),
            (json!({"type": "m.login.sso", "session": "s"}), "Other"),
            (by(json!({"user": "alice"})), "Password alice"),
            (
                by(json!({"identifier": {"type": "m.id.user", "user": "@alice:test"}})),
                "Password @alice:test",
            ),
            (
                by(json!({"identifier": null, "user": "alice"})),
                "Password alice",
            ),
            (
                by(
                    json!({"identifier": {"type": "m.id.thirdparty", "medium": "email", "address": "a@b"}}),
                ),
                "ThirdPartyPassword",
            ),
            (
                by(json!({"identifier": {"type": "m.id.user"}})),
                "missing field `user`",
            ),
            (by(json!({})), "missing field `identifier`"),
            (
                json!({"type": "m.login.password", "user": "alice"}),
                "missing field `password`",
            ),
            (
                json!([]),
                "invalid length 0, expected struct AuthObject with 5 elements",
            ),
            (
                json!("s"),
                "invalid type: string \"s\", expected struct AuthObject",
            ),
            (
                json!({"session": 1}),
                "invalid type: integer `1`, expected a string",
            ),
        ];
        for (auth, expected) in cases {
            let got = match parsed(&auth) {
                Ok(None) => "None".to_owned(),
                Ok(Some(auth)) => match auth.stage {
                    AuthStage::Password { user, .. } => format!("Password {user}"),
                    stage => format!("{stage:?}"),
                },
                Err(why) => why,
            };
            assert!(got.starts_with(expected), "{auth}: {got}");
        }
    }
}
