//! [`Query`]: looks up the keys of users, some of which are kept by appservices.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Context, Handler};
use ruma::OwnedUserId;

use super::hooks::{QueryProxy, ReadAnswer};
use super::messages::{PendingKeys, Query};
use super::rules::{lay_over, owners};
use super::{KeyProxy, KeyProxyState, log_dropped};
use crate::appservice_queries::{Question, Sharing};
use crate::key_store::queries::{Queried, UserKeys, query_keys};
use crate::services::CarriesInterests;
use crate::{Identity, Result};

impl Handler<Query> for KeyProxy {
    type Result = Result<PendingKeys<UserKeys>>;

    fn handle(&mut self, msg: Query, ctx: &mut Context<Self>) -> Self::Result {
        let state = Rc::clone(&self.state);
        let work = async move { state.query(&msg.by, msg.queried).await };
        Ok(self.begin(ctx, msg.cause, work))
    }
}

impl KeyProxyState {
    // ANCHOR: query
    /// The stored keys, replaced by those of the appservices that own the users. Without an answer, the stored keys stay.
    /// Clause: as.proxy.query
    async fn query(&self, by: &Identity, queried: Queried) -> Result<UserKeys> {
        let mut keys = query_keys(&self.env, by, queried.clone()).await?;
        let Some(proxy) = self.proxies.query else {
            return Ok(keys);
        };
        for (user, answer) in self.keys_from_owners(by, proxy, &queried).await? {
            lay_over(&mut keys, &queried, &by.user, &user, &answer);
        }
        Ok(keys)
    }
    // ANCHOR_END: query

    /// The keys of these users from the appservices that own them. They are cached for a moment, so that many queries about a
    /// user cause one request to the appservice.
    async fn keys_from_owners(
        &self,
        by: &Identity,
        proxy: QueryProxy,
        queried: &Queried,
    ) -> Result<BTreeMap<OwnedUserId, Arc<UserKeys>>> {
        let (endpoint, clock) = (proxy.proxy.endpoint, &self.env.clock);
        let (mut found, mut questions) = (BTreeMap::new(), Vec::new());
        let interests = self.env.store.interests();
        for (service, users) in owners(&interests, by, proxy.proxy, queried.keys()) {
            let mut answers = self.answers.borrow_mut();
            let (known, unknown) = answers.known(&service, users, clock.monotonic());
            found.extend(known);
            if !unknown.is_empty() {
                // Several queries at the same time share one request.
                let question = Question::post(endpoint, (proxy.ask)(&unknown), Sharing::Joined);
                questions.push((service, unknown, question));
            }
        }
        for (service, users, text) in self.put_all(questions).await? {
            let read = text.map_or_else(ReadAnswer::default, |text| (proxy.read)(&users, &text));
            log_dropped(&service, endpoint, &read.dropped);
            let mut answers = self.answers.borrow_mut();
            found.extend(answers.learn(&service, users, read.usable, clock.monotonic()));
        }
        Ok(found)
    }
}
