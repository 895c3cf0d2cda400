//! The account itself: the owner of a token, the password, deactivation. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#account-management

use actors::accounts::{ChangePassword, Deactivate};
use actors::rooms::UserDeactivated;
use actors::{Secret, ask};
use ruma::api::client::account::{
    ThirdPartyIdRemovalStatus, change_password, deactivate, get_3pids, whoami,
};

use super::confirmed::{self, Confirmed};
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on(whoami)
        .on(password)
        .on(third_party_ids)
        .on(deactivate)
}

/// The user and device that the token belongs to. Clause: as.acting.whoami
///
/// `GET /_matrix/client/*/account/whoami` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3accountwhoami
async fn whoami(_: App, caller: Caller, _: whoami::v3::Request) -> Result<whoami::v3::Response> {
    let who = caller.identity()?;
    let mut response = whoami::v3::Response::new(who.user.clone(), false);
    response.device_id = who.device.clone();
    Ok(response)
}

/// Change the password.
///
/// `POST /_matrix/client/*/account/password` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword
async fn password(
    app: App,
    caller: Caller,
    Confirmed { auth, request }: Confirmed<change_password::v3::Request>,
) -> Result<change_password::v3::Response> {
    let message = ChangePassword {
        who: caller.identity()?.clone(),
        new_password: Secret::from(request.new_password),
        logout_devices: request.logout_devices,
        auth: auth.clone(),
    };
    let asked = ask(&app.actors.accounts, message);
    confirmed::tried(&caller, auth.as_ref(), asked).await?;
    Ok(change_password::v3::Response::new())
}

/// Email addresses and phone numbers of the account: always none.
///
/// `GET /_matrix/client/*/account/3pid` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3account3pid
async fn third_party_ids(
    _: App,
    caller: Caller,
    _: get_3pids::v3::Request,
) -> Result<get_3pids::v3::Response> {
    caller.identity()?;
    Ok(get_3pids::v3::Response::new(Vec::new()))
}

/// Deactivate the account: leave its rooms, reject its invites, retract its knocks.
///
/// `POST /_matrix/client/*/account/deactivate` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
async fn deactivate(
    app: App,
    caller: Caller,
    Confirmed { auth, request }: Confirmed<deactivate::v3::Request>,
) -> Result<deactivate::v3::Response> {
    let who = caller.identity()?.clone();
    let message = Deactivate {
        who: who.clone(),
        erase: request.erase,
        auth: auth.clone(),
    };
    let asked = ask(&app.actors.accounts, message);
    confirmed::tried(&caller, auth.as_ref(), asked).await?;
    // Memberships belong to another actor, so this takes a second message.
    ask(&app.actors.rooms, UserDeactivated { user: who.user }).await?;
    Ok(deactivate::v3::Response::new(
        ThirdPartyIdRemovalStatus::NoSupport,
    ))
}
