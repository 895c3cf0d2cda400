//! The doctor over HTTP: a registration in the body, beside the services in force.
//!
//! The server asks whatever URL the registration names, for whoever asks it to: another reason why a development server listens
//! on loopback only, and why `serve` has no such route.

use std::time::Duration;

use actors::Refusal;
use actors::appservices::LARGEST;
use actors::dialects::Dialect;
use actors::doctor::{Around, Patient, examine, frameworks};
use serde::Serialize;

use crate::app::App;
use crate::caller::Caller;
use crate::doctor::Report;
use crate::error::{Error, Result};
use crate::mscs;
use crate::ruma::{Json, Raw};

/// How long a service may take for each answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found, and how the service speaks if it is in force.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    report: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    dialect: Option<Dialect>,
}

/// What is wrong with the registration in the body, YAML or JSON, and with how its service answers:
/// `POST /_understudy/doctor?framework=mautrix-go&offline=true`, both optional.
pub(super) async fn doctor(app: App, _: Caller, request: Raw) -> Result<Json> {
    let framework = request
        .param("framework")
        .map(|name| {
            frameworks::named(name)
                .ok_or_else(|| Error::invalid_param(format!("no framework {name:?} is known")))
        })
        .transpose()?;
    let patience = match request.param("offline") {
        None | Some("false") => Some(PATIENCE),
        Some("true") => None,
        Some(_) => return Err(Error::invalid_param("offline is true or false")),
    };
    if request.body.len() as u64 > LARGEST {
        return Err(Refusal::TooLarge("this is too large for a registration".into()).into());
    }
    let text = String::from_utf8(request.body.to_vec())
        .map_err(|_| Error::invalid_param("a registration is UTF-8"))?;
    let patient = Patient {
        file: "registration".to_owned(),
        text: Ok(text),
    };
    let around = Around {
        framework,
        known_keys: mscs::registration_keys(),
        ..Around::in_force(&app.actors.env, &patient)
    };
    let env = &app.actors.env;
    let dialect = patient.registration().and_then(|mine| {
        let interests = env.store.interests();
        let service = interests.service(&mine.id)?;
        Some(env.dialects.of(&service.registration))
    });
    let report = Report::new(examine(vec![patient], around, patience).await);
    Json::write(&Answer { report, dialect })
}
