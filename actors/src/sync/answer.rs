//! Answering a request to `/sync`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use ruma::OwnedUserId;
use schema::{Conn, Position, user_data};

use super::messages::{Syncing, Watch};
use super::queries::ask::{StateAt, SyncQuery};
use super::queries::devices;
use super::queries::gather::{Gathered, gather};
use super::rules::filter::Filter;
use super::rules::token::Token;
use super::volatile::VolatileState;
use super::{online, rules};
use crate::proposals::Synced;
use crate::to_device_inbox::Acknowledge;
use crate::{Actors, Identity, Refusal, Result, ask};

/// The longest time that a request waits, whatever its `timeout`: reverse proxies usually allow that long.
const LONGEST: Duration = Duration::from_secs(300);

/// A request to `/sync`. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
#[derive(Debug, Clone)]
pub struct SyncRequest {
    /// The user and device that sync.
    pub by: Identity,
    /// The token of the last answer; `None` for an initial sync.
    pub since: Option<String>,
    /// The id of a stored filter, or an inline filter, which begins with `{`.
    pub filter: Option<String>,
    /// Whether to send the whole state of every room.
    pub full_state: bool,
    /// How long to wait for something new.
    pub timeout: Duration,
    /// The field and the point in time of a room's state.
    pub state_at: StateAt,
    /// The presence to set while the request is under way; `offline` leaves it.
    pub presence: String,
    /// The pairs of the query, for proposals.
    pub query: Arc<[(String, String)]>,
}

/// A request with its token and filter parsed.
struct PreparedRequest {
    ask: SyncQuery,
    /// The position up to which `since` acknowledges to-device messages; `None` if the inbox holds none of these any more.
    acknowledges: Option<Position>,
    /// The position up to which the device has seen everything, as `since` shows; `None` for a token that is not from this database.
    seen: Option<Position>,
    /// Whether gathering may take long: for an initial sync, a full state, or an old token.
    slow: bool,
}

/// Answer a request to `/sync` as JSON: at once if there is something new for the client, else when there is, else when the timeout
/// ends. The value that `outside` returns is held while the request waits.
///
/// # Errors
/// [`Refusal::InvalidParam`] for an invalid token or filter.
// ANCHOR: answer
/// Clause: cs.sync.timeout
pub async fn answer<P>(
    actors: &Actors,
    request: SyncRequest,
    outside: impl Fn() -> P,
) -> Result<String> {
    let env = &actors.env;
    let by = request.by.clone();
    // An initial sync or a full state is answered at once.
    let at_once = request.since.is_none() || request.full_state;
    let timeout = request.timeout.min(LONGEST);
    rules::check_presence(&request.presence, None)?;
    let presence = request.presence.clone();
    let prepared = env.store.read(move |db| prepare(db, request)).await?;
    let _online = begin(actors, &by.user, &presence).await?;
    if let (Some(up_to), Some(device)) = (prepared.acknowledges, by.device.clone()) {
        let user = by.user.clone();
        ask(
            &actors.to_device_inbox,
            Acknowledge {
                user,
                device,
                up_to,
            },
        )
        .await?;
    }
    let seen = prepared.seen.zip(by.device.clone());
    if let Some((up_to, device)) = seen.filter(|_| env.hooks.follow_syncs()) {
        let user = by.user.clone();
        let synced = Synced {
            user,
            device,
            up_to,
        };
        ask(&actors.proposals, synced).await?;
    }
    let mut end_of_wait = if at_once || timeout.is_zero() {
        None
    } else {
        let (time_out, stopped) = (env.clock.sleep(timeout), env.stopping.stopped());
        Some(Box::pin(async move {
            tokio::select! {
                () = time_out => {}
                () = stopped => {}
            }
        }))
    };
    loop {
        let (asked, now) = (prepared.ask.clone(), env.clock.both());
        let volatile = Arc::clone(&actors.volatile);
        let must_answer = end_of_wait.is_none();
        let shared = env.clone();
        let look =
            move |db: &mut Conn| gather(db, &shared.hooks, &volatile, &asked, must_answer, now);
        let found = if prepared.slow {
            env.store.read_slow(look).await?
        } else {
            env.store.read(look).await?
        };
        let (seen, rooms) = match found {
            Gathered::Answer(json) => return Ok(json),
            Gathered::Nothing { seen, rooms } => (seen, rooms),
        };
        // `gather` returns nothing only if it was not called with `must_answer`.
        let Some(mut end) = end_of_wait.take() else {
            continue;
        };
        let user = by.user.clone();
        let mut wait = ask(&actors.sync, Watch { user, rooms, seen }).await?;
        let (parked, place) = (env.trace.parked(), outside());
        let woken = {
            let woken = std::pin::pin!(wait.woken());
            match select(woken, &mut end).await {
                Either::Left((busy, _)) => Some(busy),
                Either::Right(_) => None,
            }
        };
        drop((parked, place));
        // After a wake, gather again with the rest of the timeout; after the timeout, gather for the last time.
        if let Some(busy) = woken {
            drop(busy);
            if (&mut end).now_or_never().is_none() {
                end_of_wait = Some(end);
            }
        }
    }
}
// ANCHOR_END: answer

/// Marks a request to `/sync` as under way until it is dropped.
struct RequestUnderWay {
    volatile: Arc<VolatileState>,
    user: OwnedUserId,
}

impl Drop for RequestUnderWay {
    fn drop(&mut self) {
        self.volatile.online().end(self.user.as_str());
    }
}

/// Begin a request to `/sync`: set the user's presence if that changes it.
async fn begin(
    actors: &Actors,
    user: &OwnedUserId,
    state: &str,
) -> Result<Option<RequestUnderWay>> {
    if state == online::OFFLINE {
        return Ok(None);
    }
    let volatile = &actors.volatile;
    let Some(is_first) = volatile.online().begin(user.as_str()) else {
        return Ok(None);
    };
    let request = RequestUnderWay {
        volatile: Arc::clone(volatile),
        user: user.clone(),
    };
    let known = volatile.presence(user.as_str());
    if is_first || known.is_none_or(|presence| presence.state != state) {
        let syncing = Syncing {
            user: user.clone(),
            state: state.to_owned(),
            is_first,
        };
        ask(&actors.sync, syncing).await?;
    }
    Ok(Some(request))
}

/// Parse the token and the filter, and find out whether there is anything to acknowledge.
fn prepare(db: &mut Conn, request: SyncRequest) -> Result<PreparedRequest> {
    let SyncRequest {
        by,
        since,
        filter,
        full_state,
        state_at,
        query,
        ..
    } = request;
    let user = by.user.to_string();
    let device = by.device.map(|device| device.to_string());
    let filter = match filter {
        None => Filter::default(),
        Some(json) if json.starts_with('{') => Filter::parse(&json)?,
        Some(id) => {
            let json = user_data::filter(db, &user, &id)?
                .ok_or_else(|| Refusal::InvalidParam("there is no filter with this id".into()))?;
            Filter::parse(&json)?
        }
    };
    let since = since.as_deref().map(Token::parse).transpose()?;
    let head = schema::sync::head(db)?;
    let acknowledges = match (since, &device) {
        // A token above the head is not from this database (a backup was restored): it acknowledges nothing.
        (Some(since), Some(device)) if since.to_device <= head => {
            schema::sync::waits_up_to(db, &user, device, since.to_device)?
                .then_some(since.to_device)
        }
        _ => None,
    };
    let seen = since.filter(|since| since.position <= head);
    let slow = match since {
        Some(since) => full_state || devices::is_long_ago(db, since.position)?,
        None => true,
    };
    Ok(PreparedRequest {
        slow,
        ask: SyncQuery {
            user,
            device,
            since: since.map(|since| since.below(head)),
            filter,
            full_state,
            state_at,
            query,
        },
        acknowledges,
        seen: seen.map(|since| since.position.min(since.to_device)),
    })
}
