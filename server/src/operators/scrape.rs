//! The metrics as text: what was counted as it happened (`figures.rs`), and what is read now.

use std::sync::atomic::{AtomicI64, AtomicU64};

use actix_web::HttpResponse;
use actors::{Error, Result};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use schema::{Conn, figures};

use crate::figures::PREFIX;
use crate::http::limits::Limits;
use crate::state::{App, DOOR};

/// The type of the text: OpenMetrics.
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOwed {
    service: String,
    kind: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfService {
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAttempt {
    service: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfActor {
    actor: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLimit {
    limit: &'static str,
}

/// The metrics of a server with these limits, as they are now.
///
/// # Errors
/// The database cannot be read.
pub(super) async fn answer(app: &App, limits: &Limits) -> Result<HttpResponse> {
    let mut now = Registry::with_prefix(PREFIX);
    delivery(&mut now, app).await?;
    load(&mut now, app, limits);
    let mut text = String::new();
    let written = encode_registry(&mut text, app.figures().registry())
        .and_then(|()| encode_registry(&mut text, &now))
        .and_then(|()| encode_eof(&mut text));
    written.map_err(|_| Error::Failed("the encoder of metrics"))?;
    Ok(HttpResponse::Ok().content_type(TYPE).body(text))
}

/// What services are owed, and the attempts to deliver it.
async fn delivery(now: &mut Registry, app: &App) -> Result<()> {
    let env = &app.actors.env;
    let read = |db: &mut Conn| Ok::<_, Error>((figures::owed(db)?, figures::frozen_at(db)?));
    let (owed, frozen) = env.store.read_slow(read).await?;

    let family = Family::<OfOwed, Gauge>::default();
    for (of, count) in owed {
        let (service, kind, state) = (of.service, of.kind, of.state);
        let of = OfOwed {
            service,
            kind,
            state,
        };
        family.get_or_create(&of).set(count);
    }
    let help = "Items that a service is owed, at most 10,000 for each service";
    now.register("owed", help, family);

    let family = Family::<OfService, Gauge<f64, AtomicU64>>::default();
    for (service, at) in frozen {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds, far below 2^52")]
        let age = (env.clock.now() - at).max(0) as f64 / 1000.0;
        family.get_or_create(&OfService { service }).set(age);
    }
    let help = "The age of the transaction that a service has not acknowledged";
    now.register_with_unit("transaction_age", help, Unit::Seconds, family);

    let family = Family::<OfAttempt, Counter>::default();
    for ((service, outcome), count) in env.meter.attempts() {
        let service = service.to_string();
        let of = OfAttempt { service, outcome };
        family.get_or_create(&of).inc_by(count);
    }
    let help = "Attempts to send a transaction";
    now.register("attempts", help, family);
    Ok(())
}

/// How busy the server is, and what it refused.
fn load(now: &mut Registry, app: &App, limits: &Limits) {
    let env = &app.actors.env;
    let gauge = |now: &mut Registry, name: &str, help: &str, value: usize| {
        let gauge = Gauge::<i64, AtomicI64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        now.register(name, help, gauge);
    };
    let help = "Requests in progress, without those that wait";
    gauge(now, "requests_in_progress", help, app.inside());
    let help = "Requests that may be in progress at once";
    gauge(now, "request_places", help, DOOR);
    let help = "Writes that wait for the database";
    gauge(now, "writes_waiting", help, env.store.waiting());

    let family = Family::<OfActor, Gauge>::default();
    for (actor, depth) in env.meter.mailboxes() {
        family.get_or_create(&OfActor { actor }).set(depth);
    }
    let help = "Requests in the mailbox of an actor";
    now.register("mailbox", help, family);

    let family = Family::<OfLimit, Counter>::default();
    let refused = limits
        .refused()
        .into_iter()
        .chain([("door", app.refused())]);
    for (limit, count) in refused {
        family.get_or_create(&OfLimit { limit }).inc_by(count);
    }
    let help = "Requests, or parts of them, that a limit refused";
    now.register("limited", help, family);
}
