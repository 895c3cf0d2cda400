//! Registering accounts. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#account-registration

use actors::accounts::{AuthData, Available, Register, Registrant};
use actors::{Refusal, Secret, ask};
use ruma::api::client::account::register::{LoginType, RegistrationKind};
use ruma::api::client::account::{get_username_availability, register};
use ruma::{DeviceId, UserId};
use serde::Serialize;

use super::confirmed::Confirmed;
use super::session;
use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.on_json(register).on(available)
}

/// Register an account. Users go through user-interactive authentication, appservices do not.
///
/// `POST /_matrix/client/*/register` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register
async fn register(
    app: App,
    caller: Caller,
    Confirmed { auth, request }: Confirmed<register::v3::Request>,
) -> Result<Json> {
    if let Some(kind) = &request.login_type {
        session::count_login_type(&app, &caller, kind.as_str());
    }
    let by = registrant(&caller, auth, &request)?;
    let message = Register {
        by,
        username: request.username,
        device: request.device_id,
        display_name: request.initial_device_display_name,
        inhibit_login: request.inhibit_login,
    };
    let done = ask(&app.actors.accounts, message).await?;
    let answer = RegisterResponse {
        user_id: &done.user,
        access_token: done.login.as_ref().map(|login| login.token.reveal()),
        device_id: done.login.as_ref().map(|login| &*login.device),
    };
    let text = serde_json::to_string(&answer).map_err(actors::Error::from)?;
    Ok(Json(text))
}

/// The answer to a registration. ruma's would contain `"device_id": null` when there is no device.
#[derive(Serialize)]
struct RegisterResponse<'a> {
    user_id: &'a UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a DeviceId>,
}

fn registrant(
    caller: &Caller,
    auth: Option<AuthData>,
    request: &register::v3::Request,
) -> Result<Registrant> {
    if request.kind == RegistrationKind::Guest {
        return Err(Refusal::Forbidden("there are no guests here".into()).into());
    }
    if request.login_type == Some(LoginType::ApplicationService) {
        return Ok(Registrant::Service(session::service(caller)?));
    }
    if !caller.is_anonymous() {
        // A caller with a token has an account already. Without this check, an appservice that forgets `type` would register an
        // ordinary user.
        return Err(Refusal::Unknown("a registration carries no access token".into()).into());
    }
    Ok(Registrant::Person {
        auth,
        password: request.password.clone().map(Secret::from),
        address: caller.address().to_owned(),
    })
}

/// Whether a user name is free to register.
///
/// `GET /_matrix/client/*/register/available` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable
async fn available(
    app: App,
    _: Caller,
    request: get_username_availability::v3::Request,
) -> Result<get_username_availability::v3::Response> {
    let username = request.username;
    ask(&app.actors.accounts, Available { username }).await?;
    Ok(get_username_availability::v3::Response::new(true))
}
