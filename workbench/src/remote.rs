//! A homeserver that is already running, anywhere. Its registrations are given as files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{self, Client};
use crate::homeserver::{
    Done, Halt, Homeserver, Homeservers, Later, Parker, Passed, Place, Registered, registration,
};
use crate::log::Log;

/// The homeserver at a URL.
#[derive(Debug, Clone)]
pub struct Remote {
    base: String,
    name: String,
    /// The registrations, by id.
    registrations: BTreeMap<String, Value>,
    client: Client,
}

impl Remote {
    /// Finds the homeserver, and reads the registrations of the bridges that it knows.
    ///
    /// # Errors
    /// If it does not answer, a file cannot be read, or its name cannot be found out.
    pub async fn find(url: &str, files: &[PathBuf], name: Option<&str>) -> Result<Remote, String> {
        let base = url.trim_end_matches('/').to_owned();
        let mut registrations = BTreeMap::new();
        for file in files {
            let registration = registration(file)?;
            let id = registration["id"].as_str();
            let id = id.ok_or_else(|| format!("{}: a registration has an id", file.display()))?;
            registrations.insert(id.to_owned(), registration.clone());
        }
        let client = Client::new("workbench", &base, client::http()?, Log::default());
        client.must("GET", "/_matrix/client/versions", None).await?;
        let name = match (name, registrations.values().next()) {
            (Some(name), _) => name.to_owned(),
            (None, Some(registration)) => {
                let mut client = client.clone();
                client.token = registration["as_token"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                let who = client.must("GET", "/account/whoami", None).await?;
                let user = who["user_id"].as_str().unwrap_or_default();
                user.split_once(':').map_or("", |(_, name)| name).to_owned()
            }
            (None, None) => {
                return Err(
                    "the name of the server is needed: give --server-name or --registration"
                        .to_owned(),
                );
            }
        };
        Ok(Remote {
            base,
            name,
            registrations,
            client,
        })
    }

    fn registration(&self, id: &str) -> Done<&Value> {
        let known = self.registrations.get(id);
        known.ok_or_else(|| Halt::Skipped(format!("no --registration has the id {id}")))
    }
}

impl Homeservers for Remote {
    fn start<'a>(&'a self, _: &'a [u16]) -> Later<'a, Done<Box<dyn Homeserver>>> {
        Box::pin(async move { Ok(Box::new(self.clone()) as Box<dyn Homeserver>) })
    }
}

/// The expressions of the users or aliases in a registration.
fn namespaces<'a>(registration: &'a Value, of: &str) -> Vec<&'a str> {
    let users = registration["namespaces"][of]
        .as_array()
        .into_iter()
        .flatten();
    users.filter_map(|user| user["regex"].as_str()).collect()
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
        if !url.starts_with("http://") || !address.contains(':') {
            let needed = "the bridge of a scenario listens at http://HOST:PORT";
            return Err(Halt::Skipped(format!(
                "the url of {id} is {url:?}; {needed}"
            )));
        }
        Ok(Some(Place {
            address: address.to_owned(),
            hs_token: registration["hs_token"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        }))
    }

    fn register<'a>(&'a mut self, id: &'a str, wanted: &'a Value) -> Later<'a, Done<Registered>> {
        Box::pin(async move {
            let present = self.registration(id)?;
            for of in ["users", "aliases"] {
                let known = namespaces(present, of);
                let lacking = namespaces(wanted, of)
                    .into_iter()
                    .find(|regex| !known.contains(regex));
                if let Some(regex) = lacking {
                    return Err(Halt::Skipped(format!(
                        "the registration of {id} lacks the {of} {regex:?}"
                    )));
                }
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
            Ok(if reply.is_ok() {
                Passed::Advanced
            } else {
                Passed::Real
            })
        })
    }

    fn restart(&mut self, _: bool) -> Later<'_, Done> {
        Box::pin(async {
            Err(Halt::Skipped(
                "the server at --server cannot be restarted from here".to_owned(),
            ))
        })
    }

    fn parker(&self) -> Option<Parker> {
        None
    }

    fn stop(&mut self) -> Later<'_, ()> {
        Box::pin(async {})
    }
}
