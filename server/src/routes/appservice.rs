//! Endpoints that an application service calls about itself.

use actors::{Refusal, appservices, ask};
use ruma::api::client::appservice::request_ping;

use crate::http::caller::Caller;
use crate::http::error::{Error, Result};
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.on(ping)
}

/// Make the server ping the appservice. A success ends the back-off of its transactions. Clause: as.ping.own
///
/// `POST /_matrix/client/*/appservice/{appserviceId}/ping` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#post_matrixclientv1appserviceappserviceidping
async fn ping(
    app: App,
    caller: Caller,
    request: request_ping::v1::Request,
) -> Result<request_ping::v1::Response> {
    let service = caller.appservice().ok_or_else(Error::missing_token)?;
    if service.id.as_str() != request.appservice_id {
        return Err(Refusal::Forbidden("a service may ask only about itself".into()).into());
    }
    let service = service.id.clone();
    let transaction_id = request.transaction_id.map(|id| id.to_string());
    let ping = appservices::Ping {
        service,
        transaction_id,
    };
    let pinging = ask(&app.actors.appservices, ping).await?;
    // An appservice that hangs takes no request's place.
    let took = app.outside(pinging.answer()).await?;
    Ok(request_ping::v1::Response::new(took))
}
