//! Finding events: full-text search, threads, and events by time.
//!
//! Searches are parsed without ruma's types: context is wanted if its key is present, and ruma's types do not say whether it is.

use std::collections::BTreeSet;

use actors::rooms::queries::{self, SearchRequest, ThreadCriteria};
use actors::rooms::rules::parse_token;
use ruma::api::Direction;
use ruma::api::client::filter::RoomEventFilter;
use ruma::api::client::room::get_event_by_timestamp;
use ruma::api::client::threads::get_threads;
use ruma::serde::Raw as RawJson;
use ruma::{EventId, MilliSecondsSinceUnixEpoch, UInt};
use serde::Deserialize;
use serde_json::json;

use crate::http::answer::Json;
use crate::http::caller::{Auth, Caller};
use crate::http::error::{Error, Result};
use crate::http::incoming::Raw;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    ["r0", "v3"]
        .into_iter()
        .fold(routes, |routes, version| {
            let path = format!("/_matrix/client/{version}/search");
            routes.raw("POST", &path, Auth::User, search).reads()
        })
        .on(threads)
        .on(nearest)
}

#[derive(Debug, Deserialize)]
struct SearchBody {
    search_categories: Categories,
}

#[derive(Debug, Deserialize)]
struct Categories {
    room_events: Option<Criteria>,
}

#[derive(Debug, Deserialize)]
struct Criteria {
    search_term: String,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    filter: RoomEventFilter,
    order_by: Option<String>,
    event_context: Option<EventContextCriteria>,
    #[serde(default)]
    include_state: bool,
    #[serde(default)]
    groupings: Groupings,
}

#[derive(Debug, Deserialize)]
struct EventContextCriteria {
    before_limit: Option<u64>,
    after_limit: Option<u64>,
    #[serde(default)]
    include_profile: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Groupings {
    #[serde(default)]
    group_by: Vec<Grouping>,
}

#[derive(Debug, Deserialize)]
struct Grouping {
    key: String,
}

impl Criteria {
    fn sought(self, from: Option<String>) -> Result<SearchRequest> {
        let by_time = match self.order_by.as_deref() {
            None | Some("rank") => false,
            Some("recent") => true,
            Some(_) => return Err(Error::invalid_param("order_by: `recent` or `rank`")),
        };
        let size = |limit: Option<u64>| usize::try_from(limit.unwrap_or(5)).unwrap_or(usize::MAX);
        let around = self.event_context.map(|c| {
            let (before, after) = (size(c.before_limit), size(c.after_limit));
            (before, after, c.include_profile)
        });
        let groups = self.groupings.group_by.into_iter().map(|g| g.key);
        Ok(SearchRequest {
            term: self.search_term,
            keys: self.keys,
            filter: self.filter,
            by_time,
            around,
            state: self.include_state,
            groups: groups.collect::<BTreeSet<String>>(),
            from,
        })
    }
}

/// Search the events of the caller's rooms for words.
///
/// `POST /_matrix/client/*/search` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search
async fn search(app: App, caller: Caller, request: Raw) -> Result<Json> {
    let body: SearchBody = request.json()?;
    let from = request.param("next_batch").filter(|from| !from.is_empty());
    let mut categories = json!({});
    if let Some(criteria) = body.search_categories.room_events {
        let sought = criteria.sought(from.map(str::to_owned))?;
        let found = queries::search(&app.actors.env, caller.identity()?, sought).await?;
        categories["room_events"] = found;
    }
    Json::write(&json!({"search_categories": categories}))
}

/// A page of a room's threads.
///
/// `GET /_matrix/client/*/rooms/{roomId}/threads` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidthreads
async fn threads(
    app: App,
    caller: Caller,
    request: get_threads::v1::Request,
) -> Result<get_threads::v1::Response> {
    let from = request.from.as_deref().filter(|from| !from.is_empty());
    let limit = request.limit.map_or(20, u64::from);
    let page = ThreadCriteria {
        from: from.map(parse_token).transpose()?,
        participated: request.include == get_threads::v1::IncludeThreads::Participated,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let by = caller.identity()?;
    let found = queries::threads(&app.actors.env, by, &request.room_id, page).await?;
    let chunk = found.chunk.into_iter().map(RawJson::from_json);
    let mut response = get_threads::v1::Response::new(chunk.collect());
    response.next_batch = found.next;
    Ok(response)
}

/// The event closest to a time.
///
/// `GET /_matrix/client/*/rooms/{roomId}/timestamp_to_event` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
async fn nearest(
    app: App,
    caller: Caller,
    request: get_event_by_timestamp::v1::Request,
) -> Result<get_event_by_timestamp::v1::Response> {
    let (by, env) = (caller.identity()?, &app.actors.env);
    let ts = i64::try_from(u64::from(request.ts.get())).unwrap_or(i64::MAX);
    let backwards = request.dir == Direction::Backward;
    let (id, ts) = queries::nearest(env, by, &request.room_id, ts, backwards).await?;
    let id = EventId::parse(id).map_err(|e| Error::invalid_param(e.to_string()))?;
    let ts = MilliSecondsSinceUnixEpoch(UInt::try_from(ts).unwrap_or_default());
    Ok(get_event_by_timestamp::v1::Response::new(id, ts))
}
