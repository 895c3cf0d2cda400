//! Application services: their registrations, compiled namespaces, and the senders that serve them.
//!
//! *Owns* `appservices`, `back_fills`; swaps the compiled [`Interests`].
//!
//! *Asks* the senders it starts.
//!
//! *Tells* `device_lists` that a service's members are counted anew.
//!
//! *Promises* that a registration file that appears, changes or goes is in force without a restart, one reading for many
//! changes, and that a reading that fails is repeated; that a broken file takes back nothing, at a start neither; that what a service is owed outlives its file; that one service never has two senders; that a service which
//! comes late is given what waits for it before anything newer, over any crash, while nobody else waits.
//!
//! *Spec* [Registration](https://spec.matrix.org/v1.19/application-service-api/#registration).

mod back_fill;
mod change;
mod folder;
mod messages;
pub(crate) mod reading;
pub mod rules;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Recipient, ResponseFuture,
    SpawnHandle, WrapFuture,
};
use schema::ServiceId;
use tokio::sync::oneshot;

use crate::appservice_sender::{self, AppserviceSender, View};
use crate::device_lists::InterestAdded;
use crate::runtime::life::Life;
use crate::services::{CarriesInterests, Interests, Service};
use crate::transport::Transport;
use crate::{Env, Error, Refusal, Result, guarded};
use folder::Watch;
use reading::Outcome;
use rules::Plan;

pub use folder::{File, LARGEST, read as read_folder, read_text};
pub use messages::*;
pub use reading::{known, planned};
pub use rules::parse::Broken;

/// The actor.
pub struct Appservices {
    env: Env,
    folder: Option<PathBuf>,
    watch: Option<Watch>,
    transport: Transport,
    device_lists: Recipient<InterestAdded>,
    ephemeral: Option<appservice_sender::Ephemeral>,
    senders: BTreeMap<ServiceId, Addr<AppserviceSender>>,
    readings: Readings,
    /// Services are being given what they missed.
    back_filling: bool,
    /// More of them came meanwhile.
    again: bool,
    life: Life,
}

/// Readings of the folder: one at a time, each for all who asked before it began.
#[derive(Default)]
struct Readings {
    /// How many have begun.
    count: u64,
    under_way: bool,
    /// Somebody asked, or the folder changed, since the last one began.
    again: bool,
    waiting: Vec<oneshot::Sender<Result<Loaded>>>,
    /// One has brought registrations into force, or found that there are none.
    has_served: bool,
    /// How many have failed one after the other.
    failed: u32,
    retry: Option<SpawnHandle>,
    /// What the last one could not take.
    problems: Vec<Problem>,
    /// No more of them: the server is being stopped.
    over: bool,
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
            watch: None,
            transport,
            device_lists,
            ephemeral,
            senders: BTreeMap::new(),
            readings: Readings::default(),
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

    /// Read the folder: now, or when the reading is over that is under way.
    fn read(&mut self, ctx: &mut Context<Self>) {
        if self.readings.over {
            // Dropping the channels fails the requests that wait for this reading: there will be none.
            self.readings.waiting.clear();
            return;
        }
        self.readings.again = self.readings.under_way;
        if self.readings.under_way {
            return;
        }
        self.readings.under_way = true;
        self.readings.count += 1;
        if let Some(retry) = self.readings.retry.take() {
            ctx.cancel_future(retry);
        }
        // Watched first: what changes while the folder is read is read again.
        let is_watched = self.watch_folder(ctx);
        let waiting = std::mem::take(&mut self.readings.waiting);
        let (env, folder) = (self.env.clone(), self.folder.clone());
        let busy = env.trace.busy();
        let read = async move {
            match folder {
                Some(folder) => reading::read(&env, folder).await.map(Some),
                None => reading::restore(&env).await.map(|()| None),
            }
        };
        ctx.spawn(read.into_actor(self).map(move |done, this, ctx| {
            this.readings.under_way = false;
            let all_read = |read: &Option<Outcome>| read.as_ref().is_none_or(|o| o.folder_was_read);
            let is_whole = is_watched && done.as_ref().is_ok_and(all_read);
            let loaded = done.map(|outcome| this.in_force(outcome, ctx));
            Appservices::answer(waiting, loaded);
            if is_whole {
                this.readings.failed = 0;
            } else {
                this.read_later(ctx);
            }
            if this.readings.again {
                this.read(ctx);
            }
            drop(busy);
        }));
    }

    /// Have the operating system report changes of the folder. Returns whether it does.
    fn watch_folder(&mut self, ctx: &mut Context<Self>) -> bool {
        let Some(folder) = &self.folder else {
            return true;
        };
        if self.watch.as_ref().is_none_or(Watch::is_over) {
            self.watch = match Watch::start(folder, ctx.address().recipient()) {
                Ok(watch) => Some(watch),
                Err(why) => {
                    tracing::error!(folder = %folder.display(), why, "the folder of registrations cannot be watched; it is tried again");
                    None
                }
            };
        }
        self.watch.is_some()
    }

    /// A reading failed, or not all of it worked: read again, after a while that grows.
    fn read_later(&mut self, ctx: &mut Context<Self>) {
        if self.readings.over {
            return;
        }
        self.readings.failed += 1;
        let delay = appservice_sender::rules::back_off(self.readings.failed, "registrations");
        let pause = self.env.clock.sleep(delay);
        let retry = pause.into_actor(self).map(|(), this, ctx| {
            this.readings.retry = None;
            this.read(ctx);
        });
        self.readings.retry = Some(ctx.spawn(retry));
    }

    /// The registrations that were read are in force: start, change and stop senders, then tell `device_lists` and the senders that
    /// changed. Without a folder no sender is started: that is a command on a server that does not run.
    fn in_force(&mut self, outcome: Option<Outcome>, ctx: &mut Context<Self>) -> Loaded {
        let interests = self.env.store.interests();
        if let Some(outcome) = &outcome {
            self.report(&outcome.plan.problems);
            if outcome.is_new {
                warn_of_grants(&self.env, &interests);
                self.bring_in_line(&interests, &outcome.plan);
                self.back_fill(ctx);
            }
        }
        // Once at the start in any case: nothing is read of the log before it.
        let is_first = !std::mem::replace(&mut self.readings.has_served, true);
        if is_first || outcome.as_ref().is_some_and(|o| o.is_new) {
            let trace = &self.env.trace;
            trace.told("appservices", "device_lists", &InterestAdded);
            // Without it no pass begins: nothing says it again, so the bound of the mailbox is not asked.
            self.device_lists.do_send(InterestAdded);
        }
        if let Some(outcome) = outcome {
            self.env.wake.services(&outcome.plan.changed, None);
        }
        Loaded {
            services: interests.services().iter().map(|s| s.id.clone()).collect(),
            problems: self.readings.problems.clone(),
            readings: self.readings.count,
        }
    }

    /// Say aloud which files could not be taken, once for each fault.
    fn report(&mut self, problems: &[Problem]) {
        for problem in problems {
            if !self.readings.problems.contains(problem) {
                let Problem {
                    file, why, instead, ..
                } = problem;
                tracing::error!(file, why, instead, "a registration was not taken");
            }
        }
        self.readings.problems = problems.to_vec();
    }

    /// Everybody who asked before the reading began is told what came of it.
    fn answer(waiting: Vec<oneshot::Sender<Result<Loaded>>>, loaded: Result<Loaded>) {
        if let Err(error) = &loaded {
            tracing::error!(%error, "the registrations could not be read; it is tried again");
        }
        let mut waiting = waiting.into_iter();
        let again = || match &loaded {
            Ok(loaded) => Ok(loaded.clone()),
            Err(_) => Err(Error::Failed("appservices")),
        };
        // A request that timed out has dropped its channel: sending to it fails, and that is fine.
        let first = waiting.next();
        for tell in waiting {
            let _ = tell.send(again());
        }
        if let Some(tell) = first {
            let _ = tell.send(loaded);
        }
    }

    /// Start a sender for each service that has none, tell the others what they are now, and stop those whose file is gone.
    #[expect(
        clippy::disallowed_methods,
        reason = "not hints: nothing says them again, so the bound of the mailbox is not asked"
    )]
    fn bring_in_line(&mut self, interests: &Interests, plan: &Plan) {
        for service in interests.services() {
            match self.senders.get(&service.id) {
                Some(sender) if plan.changed.contains(&service.id) => {
                    announce(service);
                    warn_of_unheard(service, &self.env);
                    self.env
                        .wake
                        .set_sender(service.id.clone(), sender.clone().recipient());
                    sender.do_send(appservice_sender::Resume {
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
                sender.do_send(appservice_sender::Pause);
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
    for key in env
        .hooks
        .off
        .iter()
        .filter(|key| service.registration.says(key))
    {
        tracing::warn!(service = %service.id, "{key} is an experiment that is not switched on");
    }
}

impl Actor for Appservices {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.life.watch(ctx, &self.env, "appservices");
        ctx.set_mailbox_capacity(256);
    }
}

impl Handler<FolderChanged> for Appservices {
    type Result = ();

    fn handle(&mut self, _: FolderChanged, ctx: &mut Context<Self>) {
        self.read(ctx);
    }
}

impl Handler<Reload> for Appservices {
    type Result = ResponseFuture<Result<Loaded>>;

    fn handle(&mut self, _: Reload, ctx: &mut Context<Self>) -> Self::Result {
        let (tell, told) = oneshot::channel();
        self.readings.waiting.push(tell);
        self.read(ctx);
        guarded(&self.env, "appservices", async move {
            told.await.map_err(|_| Error::Failed("appservices"))?
        })
    }
}

impl Handler<Problems> for Appservices {
    type Result = Result<Vec<Problem>>;

    fn handle(&mut self, _: Problems, _: &mut Context<Self>) -> Self::Result {
        Ok(self.readings.problems.clone())
    }
}

impl Handler<Ping> for Appservices {
    type Result = ResponseFuture<Result<appservice_sender::Pinging>>;

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
        self.watch = None;
        self.readings.over = true;
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
