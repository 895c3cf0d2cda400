//! Steps in which an appservice asks the server to ping it, also while the appservice hangs.

use std::time::Duration;

use serde_json::json;

use crate::bridges::Mode;
use crate::steps::Step;
use crate::world::{Caller, Check, World, broken};

impl World {
    pub(crate) async fn ping(&mut self, step: Step) -> Check {
        let s = usize::from(step.a) % self.services.len();
        if self.services[s].in_force.is_none() {
            return Ok(());
        }
        let id = self.services[s].registration.id.clone();
        let mode = self.service_mode(s);
        if step.b % 3 == 0 {
            self.say(format!("the bridge {id} hangs for a while"));
            self.bridges.set_mode(&id, Mode::Hangs);
        }
        let pinged = self.ping_now(s, &id).await;
        self.bridges.set_mode(&id, mode);
        pinged
    }

    async fn ping_now(&mut self, s: usize, id: &str) -> Check {
        self.say(format!("{id} asks for a ping"));
        let bot = self.as_bot(s);
        let path = format!("/_matrix/client/v1/appservice/{id}/ping");
        if self.service_mode(s) == Mode::Hangs && self.services[s].registration.has_url {
            return self.ping_one_that_hangs(&bot, &path).await;
        }
        self.ask(&bot, "POST", &path, Some(&json!({}))).await?;
        Ok(())
    }

    /// Check that a ping to a bridge that hangs times out by the manual clock, and is answered 504 with `M_CONNECTION_TIMEOUT`.
    async fn ping_one_that_hangs(&mut self, bot: &Caller, path: &str) -> Check {
        let (person, body) = (self.person(bot), json!({}));
        let queries = || self.bridges.with(|s| s.queries.len());
        let before = queries();
        let time = async {
            // The timeout runs from the request to the bridge.
            while queries() == before {
                self.server.rests().await;
            }
            self.clock.advance(Duration::from_secs(31));
            std::future::pending::<()>().await;
        };
        let answer = tokio::select! {
            answer = tokio::time::timeout(Duration::from_secs(20), person.try_ask("POST", path, Some(&body))) => answer,
            () = time => return Ok(()),
            () = self.server.faults.death() => return Ok(()),
        };
        self.elapsed += 31_000;
        match answer {
            Ok(Ok(a)) if a.status == 504 && a.body["errcode"] == "M_CONNECTION_TIMEOUT" => Ok(()),
            Ok(answer) if self.server.faults.fired() > 0 => {
                self.judge(answer.ok(), "POST", path)?;
                Ok(())
            }
            other => broken(
                "a ping to a service that hangs is answered 504 in time",
                format!("{other:?}"),
            ),
        }
    }
}
