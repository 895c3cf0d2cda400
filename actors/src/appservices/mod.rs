//! Application services: their registrations, compiled namespaces, and the senders that serve them.
//!
//! *Owns* `appservices`, `back_fills`; swaps the compiled [`Interests`].
//!
//! *Asks* the senders it starts.
//!
//! *Tells* `device_lists` that a service's members are counted anew.
//!
//! *Promises* that a registration file that appears, changes or goes is in force without a restart; that a broken file harms
//! nobody else; that what a service is owed outlives its file; that one service never has two senders; that a service which
//! comes late is given what waits for it before anything newer, over any crash, while nobody else waits.
//!
//! *Spec* [Registration](https://spec.matrix.org/v1.19/application-service-api/#registration).

mod back_fill;
mod change;
mod folder;
mod messages;
pub mod rules;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, AtomicResponse, Context, Handler, Message,
    Recipient, ResponseFuture, WrapFuture,
};
use schema::interests::{Interests, Service};
use schema::registration::ServiceId;

use crate::appservice_sender::{self, AppserviceSender, View};
use crate::device_lists::InterestAdded;
use crate::life::Life;
use crate::transport::Transport;
use crate::{Env, Error, Refusal, Result, guarded, tell};
use rules::Plan;

pub use folder::{File, LARGEST, read as read_folder, read_text};
pub use messages::*;

/// The folder changed; said by the operating system.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
struct FolderChanged;

/// The actor.
pub struct Appservices {
    env: Env,
    folder: Option<PathBuf>,
    watcher: Option<notify::RecommendedWatcher>,
    transport: Transport,
    device_lists: Recipient<InterestAdded>,
    ephemeral: Option<appservice_sender::Ephemeral>,
    senders: BTreeMap<ServiceId, Addr<AppserviceSender>>,
    /// Services are being given what they missed.
    back_filling: bool,
    /// More of them came meanwhile.
    again: bool,
    life: Life,
}

impl Appservices {
    /// A keeper of the registrations in this folder.
    #[must_use]
    pub fn new(
        env: Env,
        folder: Option<PathBuf>,
        transport: Transport,
        device_lists: Recipient<InterestAdded>,
        ephemeral: Option<appservice_sender::Ephemeral>,
    ) -> Appservices {
        Appservices {
            env,
            folder,
            watcher: None,
            transport,
            device_lists,
            ephemeral,
            senders: BTreeMap::new(),
            back_filling: false,
            again: false,
            life: Life::default(),
        }
    }

    fn sender(&self, id: &ServiceId) -> Result<Addr<AppserviceSender>> {
        self.senders
            .get(id)
            .cloned()
            .ok_or_else(|| Refusal::NotFound("no such application service".into()).into())
    }

    /// Start a sender for each service that has none, tell the others what they are now, and stop those whose file is gone.
    fn bring_in_line(&mut self, interests: &Interests, plan: &Plan) {
        for service in interests.services() {
            match self.senders.get(&service.id) {
                Some(sender) if plan.changed.contains(&service.id) => {
                    announce(service);
                    warn_of_unheard(service, &self.env);
                    self.env
                        .wake
                        .set_sender(service.id.clone(), sender.clone().recipient());
                    let _ = sender.try_send(appservice_sender::Resume {
                        service: Arc::clone(service),
                    });
                }
                Some(_) => {}
                None => self.start_sender(service),
            }
        }
        for id in &plan.gone {
            tracing::info!(service = %id, "its file is gone; what it is owed is kept");
            self.env.wake.remove_sender(id);
            if let Some(sender) = self.senders.get(id) {
                let _ = sender.try_send(appservice_sender::Pause);
            }
        }
    }

    /// Give services what they missed, beside everything else; one at a time.
    fn back_fill(&mut self, ctx: &mut Context<Self>) {
        self.again = self.back_filling;
        if self.back_filling {
            return;
        }
        self.back_filling = true;
        let env = self.env.clone();
        let busy = env.trace.busy();
        let filled = async move {
            back_fill::run(&env).await;
            drop(busy);
        };
        ctx.spawn(filled.into_actor(self).map(|(), this, ctx| {
            this.back_filling = false;
            if this.again {
                this.back_fill(ctx);
            }
        }));
    }

    fn start_sender(&mut self, service: &Arc<Service>) {
        announce(service);
        warn_of_unheard(service, &self.env);
        let sender = AppserviceSender::new(
            self.env.clone(),
            Arc::clone(service),
            self.transport.clone(),
            self.ephemeral.clone(),
        )
        .start();
        self.env
            .wake
            .set_sender(service.id.clone(), sender.clone().recipient());
        self.senders.insert(service.id.clone(), sender);
    }
}

/// Say aloud who may read along.
fn announce(service: &Service) {
    let shared = service.registration.shared_users();
    tracing::info!(service = %service.id, url = service.registration.url.as_deref().unwrap_or("none"), sender = service.sender, "registered");
    match (shared.is_empty(), service.observes) {
        (true, _) => {}
        (false, true) => {
            tracing::warn!(service = %service.id, namespaces = ?shared, "is granted copies of messages to users whom it merely observes")
        }
        (false, false) => {
            tracing::info!(service = %service.id, namespaces = ?shared, "gets no copies of messages to users whom it merely observes: observe does not name it")
        }
    }
}

/// Say aloud which grants are nobody's.
fn warn_of_grants(env: &Env, interests: &Interests) {
    for id in rules::unknown_observers(env.settings.observe.as_deref(), interests) {
        tracing::warn!(service = %id, "observe names an application service that is not registered");
    }
}

/// Say which of this server's own keys a registration has in vain.
fn warn_of_unheard(service: &Service, env: &Env) {
    let chosen = service.registration.counts.is_some();
    if chosen && !env.settings.proposals.counts_policies {
        tracing::warn!(service = %service.id, "org.understudy.counts is heard in a development server only");
    }
    if service.registration.account_data && !env.settings.proposals.account_data {
        tracing::warn!(service = %service.id, "org.understudy.account_data is an experiment that is not switched on");
    }
}

impl Actor for Appservices {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.life.watch(ctx, &self.env, "appservices");
        ctx.set_mailbox_capacity(256);
        let Some(folder) = &self.folder else { return };
        match folder::watch(folder, ctx.address().recipient()) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                tracing::error!(folder = %folder.display(), %error, "the folder of registrations cannot be watched; restart to have changes read")
            }
        }
    }
}

impl Handler<FolderChanged> for Appservices {
    type Result = ();

    fn handle(&mut self, _: FolderChanged, ctx: &mut Context<Self>) {
        let reload = ctx.address().send(Reload);
        ctx.spawn(reload.into_actor(self).map(|loaded, _, _| match loaded {
            Ok(Ok(loaded)) => {
                for problem in loaded.problems {
                    tracing::error!(
                        file = problem.file,
                        why = problem.why,
                        "a registration was not taken"
                    );
                }
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the folder of registrations could not be read again")
            }
            Err(_) => {}
        }));
    }
}

impl Handler<Reload> for Appservices {
    /// Atomic: two readings of the folder at once could bring an older one into force last.
    type Result = AtomicResponse<Self, Result<Loaded>>;

    fn handle(&mut self, _: Reload, _: &mut Context<Self>) -> Self::Result {
        let (env, folder) = (self.env.clone(), self.folder.clone());
        let reload = async move {
            let busy = env.trace.busy();
            let known = env
                .store
                .read(|db| Ok::<_, Error>(schema::appservices::all(db)?))
                .await?;
            let Some(folder) = folder else {
                let settings = env.settings.clone();
                env.store
                    .write_alone(move |tx| change::restore(tx, &settings))
                    .await?;
                drop(busy);
                return Ok((Plan::default(), env.store.interests()));
            };
            let files = folder::read(&folder).map_err(|why| Refusal::InvalidParam(why.into()))?;
            let plan = Arc::new(rules::plan(files, &known));
            // The compiled set of a server that has just started is empty, whatever the rows say.
            let stale = env.store.interests().services().len() != plan.in_force.len();
            if stale || !plan.changed.is_empty() || !plan.gone.is_empty() {
                let registrations = plan.in_force.values().map(|(_, r)| r.clone()).collect();
                let interests = Arc::new(change::compile(registrations, &env.settings)?);
                let counted = change::count(&env.store, &interests, &plan.recounted).await?;
                warn_of_grants(&env, &interests);
                let (plan, settings, now) =
                    (Arc::clone(&plan), env.settings.clone(), env.clock.now());
                env.store
                    .write_alone(move |tx| {
                        let interests = Arc::clone(&interests);
                        change::apply(tx, &plan, interests, counted.clone(), &settings, now)
                    })
                    .await?;
            }
            drop(busy);
            let plan = Arc::try_unwrap(plan).unwrap_or_default();
            Ok((plan, env.store.interests()))
        };
        AtomicResponse::new(Box::pin(reload.into_actor(self).map(
            |done: Result<(Plan, Arc<Interests>)>, this, ctx| {
                let (plan, interests) = done?;
                // Without a folder nobody is served: a command on a server that does not run.
                if this.folder.is_some() {
                    this.bring_in_line(&interests, &plan);
                    this.back_fill(ctx);
                }
                tell(
                    &this.env,
                    "appservices",
                    &this.device_lists,
                    "device_lists",
                    InterestAdded,
                );
                let services: Vec<ServiceId> =
                    interests.services().iter().map(|s| s.id.clone()).collect();
                this.env.wake.services(&plan.changed);
                Ok(Loaded {
                    services,
                    problems: plan.problems,
                })
            },
        )))
    }
}

impl Handler<Ping> for Appservices {
    type Result = ResponseFuture<Result<Duration>>;

    fn handle(&mut self, msg: Ping, _: &mut Context<Self>) -> Self::Result {
        let sender = self.sender(&msg.service);
        guarded(&self.env, "appservices", async move {
            let ping = appservice_sender::Ping {
                transaction_id: msg.transaction_id,
            };
            sender?
                .send(ping)
                .await
                .map_err(|_| Error::Failed("appservice_sender"))?
        })
    }
}

impl Handler<RetryNow> for Appservices {
    type Result = Result<()>;

    fn handle(&mut self, msg: RetryNow, _: &mut Context<Self>) -> Self::Result {
        let _ = self
            .sender(&msg.service)?
            .try_send(appservice_sender::RetryNow);
        Ok(())
    }
}

impl Handler<Status> for Appservices {
    type Result = ResponseFuture<Result<Vec<View>>>;

    fn handle(&mut self, _: Status, _: &mut Context<Self>) -> Self::Result {
        let senders: Vec<_> = self.senders.values().cloned().collect();
        guarded(&self.env, "appservices", async move {
            let mut views = Vec::with_capacity(senders.len());
            for sender in senders {
                views.push(
                    sender
                        .send(appservice_sender::Status)
                        .await
                        .map_err(|_| Error::Failed("appservice_sender"))??,
                );
            }
            Ok(views)
        })
    }
}

impl Handler<StopSenders> for Appservices {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, _: StopSenders, _: &mut Context<Self>) -> Self::Result {
        self.watcher = None;
        let senders: Vec<_> = self.senders.values().cloned().collect();
        guarded(&self.env, "appservices", async move {
            for sender in senders {
                // A sender that is gone sends nothing.
                let _ = sender.send(appservice_sender::Pause).await;
            }
            Ok(())
        })
    }
}
