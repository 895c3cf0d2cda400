//! Application services: their registrations, compiled namespaces, and the senders that serve them.
//!
//! *Owns* `appservices`, `back_fills`; swaps the compiled [`Interests`].
//!
//! *Asks* the senders that it starts.
//!
//! *Tells* `device_lists` when the members of an appservice have been counted again.
//!
//! *Promises* that a registration file that appears, changes or disappears takes effect without a restart, with one reading for
//! several changes, and that a failed reading is repeated; that a broken file withdraws no registration, even at a start; that
//! items owed to an appservice are kept when its file is gone; that an appservice never has two senders; that a new appservice
//! gets waiting messages before newer ones, whatever crashes in between, and without delaying other appservices.
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

use crate::appservice_sender::{self, AppserviceSender, SenderStatus};
use crate::device_lists::InterestAdded;
use crate::runtime::watchdog::Watchdog;
use crate::services::{CarriesInterests, Interests, Service};
use crate::transport::Transport;
use crate::{Env, Error, Refusal, Result, guarded};
use folder::FolderWatch;
use reading::ReadingResult;
use rules::Plan;

pub use folder::{File, LARGEST, read as read_folder, read_text};
pub use messages::*;
pub use reading::{known, planned};
pub use rules::parse::Broken;

/// The actor.
pub struct Appservices {
    env: Env,
    folder: Option<PathBuf>,
    watch: Option<FolderWatch>,
    transport: Transport,
    device_lists: Recipient<InterestAdded>,
    ephemeral: Option<appservice_sender::Ephemeral>,
    senders: BTreeMap<ServiceId, Addr<AppserviceSender>>,
    readings: Readings,
    /// Whether a back-fill is running.
    back_filling: bool,
    /// Whether more appservices have come to need a back-fill since the running one began.
    again: bool,
    watchdog: Watchdog,
}

/// The readings of the folder. One runs at a time, and answers every request that was sent before it began.
#[derive(Default)]
struct Readings {
    /// The number of readings begun.
    count: u64,
    under_way: bool,
    /// Whether there was a request or a change of the folder since the last reading began.
    again: bool,
    waiting: Vec<oneshot::Sender<Result<Loaded>>>,
    /// Whether a reading has brought registrations into force, or found that there are none.
    has_served: bool,
    /// The number of consecutive failed readings.
    failed: u32,
    retry: Option<SpawnHandle>,
    /// The problems of the last reading.
    problems: Vec<Problem>,
    /// Whether readings have ended, because the server is shutting down.
    over: bool,
}

impl Appservices {
    /// The actor for the registrations in this folder.
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
            watchdog: Watchdog::default(),
        }
    }

    fn sender(&self, id: &ServiceId) -> Result<Addr<AppserviceSender>> {
        self.senders
            .get(id)
            .cloned()
            .ok_or_else(|| Refusal::NotFound("no such application service".into()).into())
    }

    /// Read the folder now, or after the current reading.
    fn read(&mut self, ctx: &mut Context<Self>) {
        if self.readings.over {
            // Dropping the channels fails the requests that wait for this reading, which will not happen.
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
        // Start the watch first, so that changes during the reading lead to another one.
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
            let all_read =
                |read: &Option<ReadingResult>| read.as_ref().is_none_or(|o| o.folder_was_read);
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

    /// Watch the folder for changes. Returns whether that worked.
    fn watch_folder(&mut self, ctx: &mut Context<Self>) -> bool {
        let Some(folder) = &self.folder else {
            return true;
        };
        if self.watch.as_ref().is_none_or(FolderWatch::is_over) {
            self.watch = match FolderWatch::start(folder, ctx.address().recipient()) {
                Ok(watch) => Some(watch),
                Err(why) => {
                    tracing::error!(folder = %folder.display(), why, "the folder of registrations cannot be watched; the next attempt follows");
                    None
                }
            };
        }
        self.watch.is_some()
    }

    /// A reading failed or was incomplete: read again after a delay that grows.
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

    /// The registrations are in force: start, update and stop senders, and then notify `device_lists` and the updated senders.
    /// Without a folder no sender is started: that is a command that runs without the server.
    fn in_force(&mut self, outcome: Option<ReadingResult>, ctx: &mut Context<Self>) -> Loaded {
        let interests = self.env.store.interests();
        if let Some(outcome) = &outcome {
            self.report(&outcome.plan.problems);
            if outcome.is_new {
                warn_of_grants(&self.env, &interests);
                self.bring_in_line(&interests, &outcome.plan);
                self.back_fill(ctx);
            }
        }
        // Send it at least once, at the start: before that `device_lists` reads nothing.
        let is_first = !std::mem::replace(&mut self.readings.has_served, true);
        if is_first || outcome.as_ref().is_some_and(|o| o.is_new) {
            let trace = &self.env.trace;
            trace.record_message("appservices", "device_lists", &InterestAdded);
            // Without this message no pass begins, and it is not repeated. `do_send` ignores the mailbox's capacity.
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

    /// Log the files that were refused, once for each fault.
    fn report(&mut self, problems: &[Problem]) {
        for problem in problems {
            if !self.readings.problems.contains(problem) {
                let Problem {
                    file, why, instead, ..
                } = problem;
                tracing::error!(file, why, instead, "a registration file was refused");
            }
        }
        self.readings.problems = problems.to_vec();
    }

    /// Reply to every request that was sent before the reading began.
    fn answer(waiting: Vec<oneshot::Sender<Result<Loaded>>>, loaded: Result<Loaded>) {
        if let Err(error) = &loaded {
            tracing::error!(%error, "the registrations could not be read; the next attempt follows");
        }
        let mut waiting = waiting.into_iter();
        let again = || match &loaded {
            Ok(loaded) => Ok(loaded.clone()),
            Err(_) => Err(Error::Failed("appservices")),
        };
        // A request that timed out has dropped its channel; the failed send is ignored.
        let first = waiting.next();
        for reply in waiting {
            let _ = reply.send(again());
        }
        if let Some(reply) = first {
            let _ = reply.send(loaded);
        }
    }

    /// Start a sender for each appservice that has none, update the others, and stop the senders of those whose file is gone.
    #[expect(
        clippy::disallowed_methods,
        reason = "these messages are not repeated, so they must not be dropped when the mailbox is full"
    )]
    fn bring_in_line(&mut self, interests: &Interests, plan: &Plan) {
        for service in interests.services() {
            match self.senders.get(&service.id) {
                Some(sender) if plan.changed.contains(&service.id) => {
                    announce(service);
                    warn_of_ineffective_keys(service, &self.env);
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
            tracing::info!(service = %id, "its registration file is gone; items that it is owed are kept");
            self.env.wake.remove_sender(id);
            if let Some(sender) = self.senders.get(id) {
                sender.do_send(appservice_sender::Pause);
            }
        }
    }

    /// Run the back-fill concurrently, for one appservice at a time.
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
        warn_of_ineffective_keys(service, &self.env);
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

/// Log the appservice, and whether it receives messages to users that it merely observes.
fn announce(service: &Service) {
    let shared = service.registration.shared_users();
    tracing::info!(service = %service.id, url = service.registration.url.as_deref().unwrap_or("none"), sender = service.sender, "registered");
    match (shared.is_empty(), service.observes) {
        (true, _) => {}
        (false, true) => {
            tracing::warn!(service = %service.id, namespaces = ?shared, "receives copies of messages to users in its non-exclusive namespaces, because observe permits it")
        }
        (false, false) => {
            tracing::info!(service = %service.id, namespaces = ?shared, "receives no copies of messages to users in its non-exclusive namespaces; add it to observe to permit that")
        }
    }
}

/// Log the ids in `observe` that are not registered.
fn warn_of_grants(env: &Env, interests: &Interests) {
    for id in rules::unknown_observers(env.settings.observe.as_deref(), interests) {
        tracing::warn!(service = %id, "observe names an application service that is not registered");
    }
}

/// Log the keys of this server's own in a registration that have no effect.
fn warn_of_ineffective_keys(service: &Service, env: &Env) {
    let chosen = service.registration.counts.is_some();
    if chosen && !env.settings.proposals.counts_policies {
        tracing::warn!(service = %service.id, "org.understudy.counts has an effect on a development server only");
    }
    for key in env
        .hooks
        .off
        .iter()
        .filter(|key| service.registration.has_flag(key))
    {
        tracing::warn!(service = %service.id, "{key} is an experiment that is not switched on");
    }
}

impl Actor for Appservices {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.watchdog.watch(ctx, &self.env, "appservices");
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
        let (reply, receiver) = oneshot::channel();
        self.readings.waiting.push(reply);
        self.read(ctx);
        guarded(&self.env, "appservices", async move {
            receiver.await.map_err(|_| Error::Failed("appservices"))?
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

impl Handler<Resend> for Appservices {
    type Result = ResponseFuture<Result<appservice_sender::Resent>>;

    fn handle(&mut self, msg: Resend, _: &mut Context<Self>) -> Self::Result {
        let sender = self.sender(&msg.service);
        guarded(&self.env, "appservices", async move {
            let resent = sender?.send(appservice_sender::Resend).await;
            resent.map_err(|_| Error::Failed("appservice_sender"))?
        })
    }
}

impl Handler<SenderStatuses> for Appservices {
    type Result = ResponseFuture<Result<Vec<SenderStatus>>>;

    fn handle(&mut self, _: SenderStatuses, _: &mut Context<Self>) -> Self::Result {
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
                // A sender that has stopped sends nothing.
                let _ = sender.send(appservice_sender::Pause).await;
            }
            Ok(())
        })
    }
}
