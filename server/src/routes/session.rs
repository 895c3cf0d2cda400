//! Logging in and out. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#legacy-api

use actors::accounts::{Credentials, LogIn, LogOut, LogOutAll, rules};
use actors::dialects::Topic;
use actors::wire::Name;
use actors::{Refusal, Secret, ask};
use ruma::api::client::session::get_login_types::v3::{
    ApplicationServiceLoginType, LoginType, PasswordLoginType,
};
use ruma::api::client::session::login::v3::{ApplicationService, LoginInfo, Password};
use ruma::api::client::session::{get_login_types, login, logout, logout_all};
use ruma::api::client::uiaa::UserIdentifier;
use ruma::api::error::DeserializationError;
use ruma::api::{IncomingRequest, Metadata};
use schema::ServiceId;

use crate::http::caller::Caller;
use crate::http::error::{Error, Result};
use crate::http::registry::Routes;
use crate::state::App;

/// The login type of appservices (MSC2778). Only the stable name is offered; the unstable one is counted and refused like any
/// unknown type.
const APPLICATION_SERVICE: Name = Name {
    unstable: "uk.half-shot.msc2778.login.application_service",
    stable: "m.login.application_service",
};

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on(flows)
        .on(log_in)
        .on(log_out)
        .on(log_out_everywhere)
}

/// The supported login types. Clause: as.users.login-flow
///
/// `GET /_matrix/client/*/login` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login
async fn flows(
    _: App,
    _: Caller,
    _: get_login_types::v3::Request,
) -> Result<get_login_types::v3::Response> {
    Ok(get_login_types::v3::Response::new(vec![
        LoginType::Password(PasswordLoginType::new()),
        LoginType::ApplicationService(ApplicationServiceLoginType::new()),
    ]))
}

/// The request of [`log_in`], checked for a key that ruma assumes to be there.
struct LogInRequest {
    kind: String,
    request: login::v3::Request,
}

impl Metadata for LogInRequest {
    const METHOD: http::Method = login::v3::Request::METHOD;
    const RATE_LIMITED: bool = login::v3::Request::RATE_LIMITED;
    type Authentication = <login::v3::Request as Metadata>::Authentication;
    type PathBuilder = <login::v3::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = login::v3::Request::PATH_BUILDER;
}

impl IncomingRequest for LogInRequest {
    type EndpointError = <login::v3::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = login::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path: &[&str],
    ) -> Result<Self, DeserializationError> {
        /// ruma indexes the object by this key and panics without it.
        #[derive(serde::Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            kind: String,
        }
        let Typed { kind } = serde_json::from_slice(request.body())?;
        let request = login::v3::Request::try_from_http_request_inner(request, path)?;
        Ok(LogInRequest { kind, request })
    }
}

/// Log in with a password, or with the token of an application service.
///
/// `POST /_matrix/client/*/login` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login
async fn log_in(app: App, caller: Caller, request: LogInRequest) -> Result<login::v3::Response> {
    count_login_type(&app, &caller, &request.kind);
    let login::v3::Request {
        login_info,
        device_id,
        initial_device_display_name,
        ..
    } = request.request;
    let message = LogIn {
        credentials: credentials(login_info, &caller)?,
        device: device_id,
        display_name: initial_device_display_name,
    };
    let account = match &message.credentials {
        Credentials::Password { user, .. } => Some(account(&app, user)),
        Credentials::Service { .. } => None,
    };
    let log_in = ask(&app.actors.accounts, message);
    let done = match account {
        Some(account) => caller.try_password(&account, log_in).await?,
        None => log_in.await?,
    };
    let token = done.token.reveal().to_owned();
    Ok(login::v3::Response::new(done.user, token, done.device))
}

/// The user id that a login names, in one normalised spelling, under which failed attempts are counted. Names that cannot be an
/// account here share the empty one.
fn account(app: &App, user: &str) -> String {
    let server = &app.actors.env.settings.server_name;
    let meant = rules::meant(server, &user.to_ascii_lowercase());
    meant.map_or_else(String::new, |meant| meant.to_string())
}

/// Record which name of the login type an appservice used to log in or register.
pub(super) fn count_login_type(app: &App, caller: &Caller, kind: &str) {
    let names = [APPLICATION_SERVICE.stable, APPLICATION_SERVICE.unstable];
    if let Some(service) = caller.appservice()
        && names.contains(&kind)
    {
        let dialects = &app.actors.env.dialects;
        dialects.count(&service.id, [(Topic::Login, kind)]);
    }
}

fn credentials(info: LoginInfo, caller: &Caller) -> Result<Credentials> {
    match info {
        #[expect(
            deprecated,
            reason = "clients still send `user` instead of `identifier`"
        )]
        LoginInfo::Password(Password {
            identifier,
            password,
            user,
            ..
        }) => Ok(Credentials::Password {
            user: named(identifier, user)?,
            password: Secret::from(password),
        }),
        #[expect(
            deprecated,
            reason = "services still send `user` instead of `identifier`"
        )]
        LoginInfo::ApplicationService(ApplicationService {
            identifier, user, ..
        }) => Ok(Credentials::Service {
            service: service(caller)?,
            user: named(identifier, user)?,
        }),
        _ => Err(Refusal::Unknown("this way to log in is not offered".into()).into()),
    }
}

/// The appservice that the token belongs to, for endpoints of appservices only.
///
/// # Errors
/// 401 without the token of an appservice.
pub(super) fn service(caller: &Caller) -> Result<ServiceId> {
    match caller.appservice() {
        Some(service) => Ok(service.id.clone()),
        None if caller.token().is_some() => Err(Refusal::UnknownToken.into()),
        None => Err(caller
            .refused()
            .map_or_else(Error::missing_token, |why| why.clone().into())),
    }
}

/// The user name of a login. Email addresses and phone numbers are refused, since no account has any.
fn named(identifier: Option<UserIdentifier>, user: Option<String>) -> Result<String> {
    match (identifier, user) {
        (Some(UserIdentifier::Matrix(id)), _) => Ok(id.user),
        (Some(_), _) => {
            let text =
                "no mail address and no telephone number belongs to an account here; use m.id.user";
            Err(Refusal::Forbidden(text.into()).into())
        }
        (None, Some(user)) => Ok(user),
        (None, None) => Err(Refusal::MissingParam("identifier".into()).into()),
    }
}

/// Log out: delete the caller's device.
///
/// `POST /_matrix/client/*/logout` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout
async fn log_out(app: App, caller: Caller, _: logout::v3::Request) -> Result<logout::v3::Response> {
    let who = caller.identity()?.clone();
    ask(&app.actors.accounts, LogOut { who }).await?;
    Ok(logout::v3::Response::new())
}

/// Log out everywhere: delete all devices of the user.
///
/// `POST /_matrix/client/*/logout/all` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall
async fn log_out_everywhere(
    app: App,
    caller: Caller,
    _: logout_all::v3::Request,
) -> Result<logout_all::v3::Response> {
    let who = caller.identity()?.clone();
    ask(&app.actors.accounts, LogOutAll { who }).await?;
    Ok(logout_all::v3::Response::new())
}
