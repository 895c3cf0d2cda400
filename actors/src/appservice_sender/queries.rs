//! Reports the state of a sender.

use actix::{Context, Handler, ResponseFuture};
use schema::set_aside;

use super::{AppserviceSender, Aside, Observing, SetAside, State, Status, View};
use crate::{Error, Result, guarded};

/// The most rows that were set aside in a report.
const SHOWN: i64 = 10;

impl AppserviceSender {
    fn view(&self) -> View {
        let (state, transaction, next_attempt_at) = match &self.state {
            _ if self.paused => ("paused", None, None),
            State::Idle => ("idle", None, None),
            State::Gathering => ("gathering", None, None),
            State::Sending(frozen) => ("sending", Some(frozen.txn_id), None),
            State::Acknowledging(frozen) => ("acknowledging", Some(frozen.txn_id), None),
            State::Waiting(frozen, _, until) => ("waiting", Some(frozen.txn_id), Some(*until)),
        };
        View {
            service: self.service.id.to_string(),
            state,
            transaction,
            failed_attempts: self.failed_attempts,
            next_attempt_at,
            last_error: self.last_error.clone(),
            acknowledged: self.acknowledged,
            gathered: self.gathered,
            set_aside: None,
            observing: Observing::of(&self.service),
        }
    }
}

impl Handler<Status> for AppserviceSender {
    type Result = ResponseFuture<Result<View>>;

    fn handle(&mut self, _: Status, _: &mut Context<Self>) -> Self::Result {
        let (mut view, id) = (self.view(), self.service.id.clone());
        let aside = self.env.store.read(move |db| {
            let count = set_aside::count(db, &id)?;
            Ok::<_, Error>((count, set_aside::oldest(db, &id, SHOWN)?))
        });
        guarded(&self.env, "appservice_sender", async move {
            let (count, oldest) = aside.await?;
            let shown = |row: set_aside::Aside| Aside {
                kind: row.kind,
                position: row.position,
                why: row.why,
            };
            view.set_aside = (count > 0).then(|| SetAside {
                count,
                oldest: oldest.into_iter().map(shown).collect(),
            });
            Ok(view)
        })
    }
}
