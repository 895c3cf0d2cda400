//! The trace as it grows, as server-sent events.
//!
//! The stream is woken by the trace. It reads what its client takes: a client that reads too slowly misses the messages that the
//! trace has dropped meanwhile, and is sent the number of the last of them.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use actors::Env;
use actors::runtime::trace::Trace;
use futures_util::stream;
use serde_json::json;

use super::faults;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::incoming::Raw;
use crate::state::App;

/// The most messages in one piece of the stream.
const PIECE: usize = 256;

/// A reader of the trace.
struct Reader {
    trace: Trace,
    stopped: Pin<Box<dyn Future<Output = ()>>>,
    /// The number of the last message that was sent.
    seen: u64,
    /// What is sent first.
    hello: Option<String>,
}

/// Every message of the trace after a number, and then each new one: `GET /_understudy/live?after=17`. Each is an event with its
/// number as id. The first event, `hello`, has the numbers of the oldest and newest message that are kept, and `run`, which differs
/// once numbers count from 1 again. The event `gap` has the number up to which messages are missing. The header `Last-Event-ID`
/// counts before `after`.
pub(super) async fn live(
    app: App,
    _: Caller,
    http: HttpRequest,
    request: Raw,
) -> Result<HttpResponse> {
    let env = &app.actors.env;
    let last = http
        .headers()
        .get("last-event-id")
        .and_then(|id| id.to_str().ok());
    let after = last.or_else(|| request.param("after"));
    let after = after.and_then(|number| number.parse().ok()).unwrap_or(0);
    // A number that was never given comes from a server before this one.
    let after = if after > env.trace.kept().1 { 0 } else { after };
    let reader = Reader {
        trace: env.trace.clone(),
        stopped: Box::pin(env.stopping.stopped()),
        seen: after,
        hello: Some(hello(env)),
    };
    let pieces = stream::unfold(reader, |mut reader| async move {
        let piece = reader.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(piece)), reader))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .streaming(pieces))
}

fn hello(env: &Env) -> String {
    let (oldest, newest) = env.trace.kept();
    let data = json!({
        "version": env!("CARGO_PKG_VERSION"), "server_name": env.settings.server_name, "run": env.trace.run(),
        "oldest": oldest, "newest": newest, "clock": faults::shown(env),
    });
    format!("event: hello\ndata: {data}\n\n")
}

impl Reader {
    /// The next events; `None` when the server stops.
    async fn next(&mut self) -> Option<String> {
        if let Some(hello) = self.hello.take() {
            return Some(hello);
        }
        tokio::select! {
            biased;
            () = &mut self.stopped => return None,
            () = self.trace.grown_beyond(self.seen) => {}
        }
        let following = self.trace.following(self.seen, PIECE);
        let mut piece = String::new();
        if let Some(up_to) = following.gap {
            let _ = write!(piece, "event: gap\ndata: {}\n\n", json!({"up_to": up_to}));
        }
        for message in following.messages {
            self.seen = message.number;
            // A message consists of text and JSON, so it can be serialized, and JSON has no line breaks here.
            let data = serde_json::to_string(&message).unwrap_or_default();
            let _ = write!(
                piece,
                "id: {}\ndata: {}\n\n",
                message.number,
                data.replace(['\r', '\n'], " ")
            );
        }
        Some(piece)
    }
}
