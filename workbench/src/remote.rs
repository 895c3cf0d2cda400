//! A homeserver that is already running, anywhere. Its registrations are given as files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{self, Client};
use crate::homeserver::{
    Done, Halt, Homeserver, Homeservers, Later, Passed, Place, Registered, Work, registration,
};
use crate::listener::pause;
use crate::log::Log;
use crate::registrations::{check, lacks};
use crate::shell;

/// The homeserver at a URL.
#[derive(Debug, Clone)]
pub struct Remote {
    base: String,
    name: String,
    /// What it says that it is: a name and a version.
    software: Option<String>,
    /// The registrations, by id.
    registrations: BTreeMap<String, Value>,
    /// The shell command that restarts it.
    restart: Option<String>,
    client: Client,
}

/// What every homeserver answers.
const VERSIONS: &str = "/_matrix/client/versions";

/// How long requests of the homeserver that are due may take after its clock was advanced.
const IN_FLIGHT: Duration = Duration::from_millis(500);

/// How long a homeserver may take to start.
const START: Duration = Duration::from_secs(60);

/// How long the command that restarts a homeserver may take.
const RESTART: Duration = Duration::from_secs(120);

impl Remote {
    /// Finds the homeserver, and reads the registrations of the bridges that it knows.
    ///
    /// # Errors
    /// If a file is no registration of a bridge that can listen here, the server does not answer like a homeserver, or its name
    /// cannot be found out.
    pub async fn find(url: &str, files: &[PathBuf], name: Option<&str>) -> Result<Remote, String> {
        let base = url.trim_end_matches('/').to_owned();
        let mut registrations = BTreeMap::new();
        for file in files {
            let registration = registration(file)?;
            check(&registration).map_err(|why| format!("{}: {why}", file.display()))?;
            let id = registration["id"].as_str().unwrap_or_default();
            registrations.insert(id.to_owned(), registration.clone());
        }
        let client = Client::new("workbench", &base, client::http()?, Log::default());
        let versions = client.ask("GET", VERSIONS, None).await?;
        if !versions.is_ok() || !versions.body["versions"].is_array() {
            let came = versions.shown();
            return Err(format!(
                "{base} is no homeserver: GET {VERSIONS} has no list `versions`: {came}"
            ));
        }
        let path = "/_matrix/federation/v1/version";
        let version = client.ask("GET", path, None).await?.body;
        let software = version["server"]["name"].as_str().map(|name| {
            let version = version["server"]["version"].as_str().unwrap_or_default();
            // Behind the number, some say how they were built.
            let number = version.split(' ').next().unwrap_or_default();
            format!("{name} {number}").trim_end().to_owned()
        });
        let name = match (name, registrations.values().next()) {
            (Some(name), _) => name.to_owned(),
            (None, Some(registration)) => {
                let mut client = client.clone();
                client.token = registration["as_token"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                let who = client.must("GET", "/account/whoami", None).await?;
                let user = who["user_id"]
                    .as_str()
                    .and_then(|user| user.split_once(':'));
                let (_, name) = user.ok_or_else(|| {
                    format!(
                        "{base}: GET /account/whoami has no `user_id` with a server's name: {who}"
                    )
                })?;
                name.to_owned()
            }
            (None, None) => {
                let why = "the name of the server is needed, or a registration of a bridge there";
                return Err(why.to_owned());
            }
        };
        Ok(Remote {
            base,
            name,
            software,
            registrations,
            restart: None,
            client,
        })
    }

    /// The homeserver with a shell command that restarts it. Its argument is `kill` or `stop`.
    #[must_use]
    pub fn restarted_by(self, command: Option<String>) -> Remote {
        Remote {
            restart: command,
            ..self
        }
    }

    /// What the homeserver is: its name and version if it says them, otherwise its URL.
    #[must_use]
    pub fn shown(&self) -> String {
        self.software.clone().unwrap_or_else(|| self.base.clone())
    }

    fn registration(&self, id: &str) -> Done<&Value> {
        let known = self.registrations.get(id);
        known
            .ok_or_else(|| Halt::Skipped(format!("no registration that was given has the id {id}")))
    }
}

impl Homeservers for Remote {
    fn start<'a>(&'a self, _: &'a [u16]) -> Later<'a, Done<Box<dyn Homeserver>>> {
        Box::pin(async move { Ok(Box::new(self.clone()) as Box<dyn Homeserver>) })
    }
}

impl Homeserver for Remote {
    fn base(&self) -> String {
        self.base.clone()
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_fresh(&self) -> bool {
        false
    }

    fn place(&self, id: &str) -> Done<Option<Place>> {
        let registration = self.registration(id)?;
        let url = registration["url"].as_str().unwrap_or_default();
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        Ok(Some(Place {
            address: address.to_owned(),
            hs_token: registration["hs_token"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        }))
    }

    fn known(&self) -> Vec<String> {
        self.registrations.keys().cloned().collect()
    }

    fn register<'a>(&'a mut self, id: &'a str, wanted: &'a Value) -> Later<'a, Done<Registered>> {
        Box::pin(async move {
            let present = self.registration(id)?;
            if let Some(why) = lacks(present, wanted, true) {
                return Err(Halt::Skipped(format!("the registration of {id} {why}")));
            }
            // An understudy that has failed to reach the bridge tries again now; others know no such route.
            let retry = format!("/_understudy/appservices/{id}/retry");
            self.client.ask("POST", &retry, Some(&json!({}))).await?;
            let text = |key: &str| present[key].as_str().unwrap_or_default().to_owned();
            Ok(Registered {
                as_token: text("as_token"),
                sender: text("sender_localpart"),
            })
        })
    }

    fn settle(&self) -> Later<'_, Done<bool>> {
        Box::pin(async { Ok(false) })
    }

    fn advance(&self, time: Duration) -> Later<'_, Done<Passed>> {
        Box::pin(async move {
            let body = json!({"ms": time.as_millis() as u64});
            let reply = self
                .client
                .ask("POST", "/_understudy/clock/advance", Some(&body))
                .await?;
            if !reply.is_ok() {
                return Ok(Passed::Real);
            }
            // What is due now is sent and answered before the clock moves again: a request in flight would time out.
            pause(IN_FLIGHT).await;
            Ok(Passed::Advanced)
        })
    }

    fn restart(&mut self, kill: bool) -> Later<'_, Done> {
        Box::pin(async move {
            let Some(command) = &self.restart else {
                let why = "the server cannot be restarted: no command was given that restarts it";
                return Err(Halt::Skipped(why.to_owned()));
            };
            let how = if kill { "kill" } else { "stop" };
            let command = format!("{command} {how}");
            shell::run(&command, RESTART).await?;
            // Its old connections are gone.
            self.client = self.client.moved(&self.base, client::http()?);
            let begun = Instant::now();
            loop {
                let versions = self.client.must("GET", VERSIONS, None);
                match versions.await {
                    Ok(_) => return Ok(()),
                    Err(_) if begun.elapsed() < START => pause(Duration::from_millis(100)).await,
                    Err(why) => return Err(Halt::Failed(why)),
                }
            }
        })
    }

    fn work(&self) -> Option<Arc<dyn Work>> {
        None
    }

    fn stop(&mut self) -> Later<'_, ()> {
        Box::pin(async {})
    }
}
