//! Reports the state of a sender.

use actix::{Context, Handler, ResponseFuture};
use schema::set_aside;

use super::{
    AppserviceSender, Observing, SenderState, SenderStatus, SetAside, SetAsideItem, Status,
};
use crate::{Error, Result, guarded};

/// The most rows in a report of those that were set aside because they cannot be sent.
const SHOWN: i64 = 10;

impl AppserviceSender {
    fn view(&self) -> SenderStatus {
        let (state, transaction, next_attempt_at) = match &self.state {
            _ if self.paused => ("paused", None, None),
            SenderState::Idle => ("idle", None, None),
            SenderState::Gathering => ("gathering", None, None),
            SenderState::Sending(frozen) => ("sending", Some(frozen.txn_id), None),
            SenderState::Acknowledging(frozen) => ("acknowledging", Some(frozen.txn_id), None),
            SenderState::Waiting(frozen, _, until) => {
                ("waiting", Some(frozen.txn_id), Some(*until))
            }
        };
        SenderStatus {
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
    type Result = ResponseFuture<Result<SenderStatus>>;

    fn handle(&mut self, _: Status, _: &mut Context<Self>) -> Self::Result {
        let (mut view, id) = (self.view(), self.service.id.clone());
        let aside = self.env.store.read(move |db| {
            let count = set_aside::count(db, &id)?;
            Ok::<_, Error>((count, set_aside::oldest(db, &id, SHOWN)?))
        });
        guarded(&self.env, "appservice_sender", async move {
            let (count, oldest) = aside.await?;
            let shown = |row: set_aside::SetAsideRow| SetAsideItem {
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
