//! MSC9904, made up for this suite — a request can ask that account data and state say that they were read. Without the parameter the
//! answers are those of the endpoints.

use serde_json::json;
use understudy::http::around::{Answer, Next, Seen};
use understudy::http::caller::Caller;
use understudy::http::error::Result;
use understudy::mscs::Msc;
use understudy::state::App;

use actors::hooks::ProposalHooks;

/// The data sheet.
pub(super) static MSC: Msc = Msc {
    title: "Reading that shows",
    routes: |routes| {
        let routes = routes.around("GET", "/user/{user}/account_data/{type}", show);
        routes.around("GET", "/rooms/{room}/state/{type}/{key}", show)
    },
    hooks: ProposalHooks {
        number: 9904,
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

async fn show(_: App, _: Caller, mut request: Seen, next: Next) -> Result<Answer> {
    let asked = request.take_param("org.example.msc9904.show");
    let path = request.path.join("|");
    let mut answer = next.run(request).await?;
    if asked.is_some() {
        answer.body["org.example.msc9904.read"] = json!(path);
    }
    Ok(answer)
}
