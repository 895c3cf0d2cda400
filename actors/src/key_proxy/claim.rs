//! [`Claim`]: claims one-time keys, some of which are kept by appservices.
//!
//! Next on the way of a claim: `actors/src/key_store/claim.rs`.

use std::collections::BTreeSet;
use std::rc::Rc;

use actix::{Context, Handler};
use ruma::OwnedUserId;
use schema::ServiceId;

use super::hooks::ClaimProxy;
use super::messages::{Claim, NAME, PendingKeys};
use super::rules::{add, owners};
use super::{KeyProxy, KeyProxyState, log_dropped};
use crate::appservice_queries::{Question, Sharing};
use crate::key_store::queries::{UserKeys, query_keys};
use crate::key_store::{self, ClaimFallback, Claimed, OneTimeKeys, Wanted};
use crate::services::CarriesInterests;
use crate::{Identity, Result, ask_as};

impl Handler<Claim> for KeyProxy {
    type Result = Result<PendingKeys<OneTimeKeys>>;

    fn handle(&mut self, msg: Claim, ctx: &mut Context<Self>) -> Self::Result {
        let state = Rc::clone(&self.state);
        let work = async move { state.claim(&msg.by, msg.wanted).await };
        Ok(self.begin(ctx, msg.cause, work))
    }
}

impl KeyProxyState {
    // ANCHOR: claim
    /// Claim from the key store, then from the appservices, then fallback keys from the key store. The key store never waits
    /// for an appservice. Clause: as.proxy.claim, as.proxy.claim-fallback
    async fn claim(&self, by: &Identity, wanted: Wanted) -> Result<OneTimeKeys> {
        let proxy = self.proxies.claim;
        let claim = key_store::Claim {
            wanted,
            or_fallback: proxy.is_none(),
        };
        let mut claimed = ask_as(NAME, &self.key_store, claim).await?;
        if let Some(proxy) = proxy {
            self.claim_from_services(by, proxy, &mut claimed).await?;
        }
        let wanted = std::mem::take(&mut claimed.missing);
        if !wanted.is_empty() && proxy.is_some() {
            let last = ask_as(NAME, &self.key_store, ClaimFallback { wanted }).await?;
            add(&mut claimed.one_time_keys, last.one_time_keys);
        }
        Ok(claimed.one_time_keys)
    }
    // ANCHOR_END: claim

    /// Ask the exclusive owner of each user for the missing keys. Two claims never share an answer, since a one-time key can be
    /// used once.
    async fn claim_from_services(
        &self,
        by: &Identity,
        proxy: ClaimProxy,
        claimed: &mut Claimed,
    ) -> Result<()> {
        let endpoint = proxy.proxy.endpoint;
        let interests = self.env.store.interests();
        let owners = owners(&interests, by, proxy.proxy, claimed.missing.keys());
        let question = |(service, users): (ServiceId, BTreeSet<OwnedUserId>)| {
            let missing = users.into_iter().map(|user| {
                let devices = claimed.missing.get(&user).cloned().unwrap_or_default();
                (user, devices)
            });
            let asked: Wanted = missing.collect();
            let question = Question::post(endpoint, (proxy.ask)(&asked), Sharing::Alone);
            (service, asked, question)
        };
        let answers = self.put_all(owners.into_iter().map(question).collect());
        for (service, asked, text) in answers.await? {
            let Some(text) = text else { continue };
            let stored = self.stored_keys(by, &asked).await?;
            let mut read = (proxy.read)(&asked, &stored, &text);
            let again = self.given.borrow_mut().first_time(&mut read.usable);
            read.dropped.extend(again);
            log_dropped(&service, endpoint, &read.dropped);
            for (user, devices) in &read.usable {
                if let Some(missing) = claimed.missing.get_mut(user) {
                    missing.retain(|device, _| !devices.contains_key(device));
                }
            }
            add(&mut claimed.one_time_keys, read.usable);
        }
        claimed.missing.retain(|_, devices| !devices.is_empty());
        Ok(())
    }

    /// The stored keys of these devices, with which the appservice's answer is verified.
    async fn stored_keys(&self, by: &Identity, asked: &Wanted) -> Result<UserKeys> {
        let queried = asked
            .iter()
            .map(|(user, devices)| (user.clone(), devices.keys().cloned().collect()));
        query_keys(&self.env, by, queried.collect()).await
    }
}
