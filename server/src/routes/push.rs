//! Push rules. Clients evaluate them; this server pushes nothing. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-notifications

use actors::accounts::{ChangePushRules, PushRuleChange, queries};
use actors::{Refusal, ask};
use ruma::api::client::push::{
    PushRule, RuleKind, delete_pushrule, get_pushers, get_pushrule, get_pushrule_actions,
    get_pushrule_enabled, get_pushrules_all, get_pushrules_global_scope, set_pusher, set_pushrule,
    set_pushrule_actions, set_pushrule_enabled,
};

use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on(all)
        .on(global)
        .on(rule)
        .on(put_rule)
        .on(delete_rule)
        .on(enabled)
        .on(put_enabled)
        .on(actions)
        .on(put_actions)
        .on(pushers)
        .on(put_pusher)
}

/// All push rules.
///
/// `GET /_matrix/client/*/pushrules/` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrules
async fn all(
    app: App,
    caller: Caller,
    _: get_pushrules_all::v3::Request,
) -> Result<get_pushrules_all::v3::Response> {
    let rules = queries::push_rules(&app.actors.env, &caller.identity()?.user).await?;
    Ok(get_pushrules_all::v3::Response::new(rules))
}

/// The push rules of the only scope, `global`.
///
/// `GET /_matrix/client/*/pushrules/global/` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobal
async fn global(
    app: App,
    caller: Caller,
    _: get_pushrules_global_scope::v3::Request,
) -> Result<get_pushrules_global_scope::v3::Response> {
    let rules = queries::push_rules(&app.actors.env, &caller.identity()?.user).await?;
    Ok(get_pushrules_global_scope::v3::Response::new(rules))
}

/// Find one of the caller's push rules.
async fn find(app: &App, caller: &Caller, kind: RuleKind, rule_id: &str) -> Result<PushRule> {
    let rules = queries::push_rules(&app.actors.env, &caller.identity()?.user).await?;
    let rule = rules
        .get(kind, rule_id)
        .ok_or_else(|| Refusal::NotFound("no such push rule".into()))?;
    Ok(rule.to_owned().into())
}

/// One push rule.
///
/// `GET /_matrix/client/*/pushrules/global/{kind}/{ruleId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleid
async fn rule(
    app: App,
    caller: Caller,
    request: get_pushrule::v3::Request,
) -> Result<get_pushrule::v3::Response> {
    let rule = find(&app, &caller, request.kind, &request.rule_id).await?;
    Ok(get_pushrule::v3::Response::new(rule))
}

/// Whether a push rule is enabled.
///
/// `GET /_matrix/client/*/pushrules/global/{kind}/{ruleId}/enabled` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleidenabled
async fn enabled(
    app: App,
    caller: Caller,
    request: get_pushrule_enabled::v3::Request,
) -> Result<get_pushrule_enabled::v3::Response> {
    let rule = find(&app, &caller, request.kind, &request.rule_id).await?;
    Ok(get_pushrule_enabled::v3::Response::new(rule.enabled))
}

/// The actions of a push rule.
///
/// `GET /_matrix/client/*/pushrules/global/{kind}/{ruleId}/actions` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleidactions
async fn actions(
    app: App,
    caller: Caller,
    request: get_pushrule_actions::v3::Request,
) -> Result<get_pushrule_actions::v3::Response> {
    let rule = find(&app, &caller, request.kind, &request.rule_id).await?;
    Ok(get_pushrule_actions::v3::Response::new(rule.actions))
}

async fn change(app: &App, caller: &Caller, change: PushRuleChange) -> Result<()> {
    let who = caller.identity()?.clone();
    ask(&app.actors.accounts, ChangePushRules { who, change }).await?;
    Ok(())
}

/// Add or replace a push rule.
///
/// `PUT /_matrix/client/*/pushrules/global/{kind}/{ruleId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleid
async fn put_rule(
    app: App,
    caller: Caller,
    request: set_pushrule::v3::Request,
) -> Result<set_pushrule::v3::Response> {
    let put = PushRuleChange::Put {
        rule: request.rule,
        before: request.before,
        after: request.after,
    };
    change(&app, &caller, put).await?;
    Ok(set_pushrule::v3::Response::new())
}

/// Delete a push rule.
///
/// `DELETE /_matrix/client/*/pushrules/global/{kind}/{ruleId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3pushrulesglobalkindruleid
async fn delete_rule(
    app: App,
    caller: Caller,
    request: delete_pushrule::v3::Request,
) -> Result<delete_pushrule::v3::Response> {
    let delete = PushRuleChange::Delete {
        kind: request.kind,
        rule_id: request.rule_id,
    };
    change(&app, &caller, delete).await?;
    Ok(delete_pushrule::v3::Response::new())
}

/// Enable or disable a push rule.
///
/// `PUT /_matrix/client/*/pushrules/global/{kind}/{ruleId}/enabled` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidenabled
async fn put_enabled(
    app: App,
    caller: Caller,
    request: set_pushrule_enabled::v3::Request,
) -> Result<set_pushrule_enabled::v3::Response> {
    let enable = PushRuleChange::Enable {
        kind: request.kind,
        rule_id: request.rule_id,
        enabled: request.enabled,
    };
    change(&app, &caller, enable).await?;
    Ok(set_pushrule_enabled::v3::Response::new())
}

/// Set the actions of a push rule.
///
/// `PUT /_matrix/client/*/pushrules/global/{kind}/{ruleId}/actions` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidactions
async fn put_actions(
    app: App,
    caller: Caller,
    request: set_pushrule_actions::v3::Request,
) -> Result<set_pushrule_actions::v3::Response> {
    let set = PushRuleChange::SetActions {
        kind: request.kind,
        rule_id: request.rule_id,
        actions: request.actions,
    };
    change(&app, &caller, set).await?;
    Ok(set_pushrule_actions::v3::Response::new())
}

/// The caller's pushers: always none.
///
/// `GET /_matrix/client/*/pushers` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers
async fn pushers(
    _: App,
    caller: Caller,
    _: get_pushers::v3::Request,
) -> Result<get_pushers::v3::Response> {
    caller.identity()?;
    Ok(get_pushers::v3::Response::new(Vec::new()))
}

/// Set a pusher. It is accepted and discarded, since nothing is pushed.
///
/// `POST /_matrix/client/*/pushers/set` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset
// Deviation: a pusher that was set is not listed by `GET /pushers`.
async fn put_pusher(
    _: App,
    caller: Caller,
    _: set_pusher::v3::Request,
) -> Result<set_pusher::v3::Response> {
    caller.identity()?;
    Ok(set_pusher::v3::Response::new())
}
