//! The doctor over HTTP: examines an active registration, or one in the request, together with the active appservices.
//!
//! Only URLs of active registrations are contacted. Otherwise a web page could make the server send requests to any URL that it
//! can reach.

use std::time::Duration;

use actors::Refusal;
use actors::appservices::LARGEST;
use actors::dialects::Dialect;
use actors::services::CarriesInterests;
use schema::ServiceId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::doctor::{DoctorReport, ExaminationContext, RegistrationFile, examine, frameworks};
use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::{Error, Result};
use crate::http::incoming::Raw;
use crate::mscs;
use crate::state::App;

/// How long an appservice may take for each answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The registration to examine. An object with other keys is a registration itself.
#[derive(Deserialize)]
#[serde(untagged)]
enum DoctorRequest {
    InForce(ById),
    Given(Given),
    Itself(Map<String, Value>),
}

/// The active registration with this id.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ById {
    id: ServiceId,
}

/// The content of a registration: an object, or a string with YAML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    registration: Value,
}

/// The findings and, for an active appservice, the stable and unstable names that it uses on the wire.
#[derive(Serialize)]
struct DoctorResponse {
    #[serde(flatten)]
    report: DoctorReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    dialect: Option<Dialect>,
}

/// Examine a registration and, if it is active with the same URL, its appservice's answers:
/// `POST /_understudy/doctor?framework=mautrix-go&offline=true`, both parameters optional, with `{"id": "irc"}`, with
/// `{"registration": "id: irc\n…"}`, or with the registration itself as JSON.
pub(super) async fn doctor(app: App, _: Caller, request: Raw) -> Result<Json> {
    let framework = request
        .param("framework")
        .map(|name| {
            frameworks::named(name)
                .ok_or_else(|| Error::invalid_param(format!("no framework {name:?} is known")))
        })
        .transpose()?;
    let timeout = match request.param("offline") {
        None | Some("false") => Some(PATIENCE),
        Some("true") => None,
        Some(_) => return Err(Error::invalid_param("offline must be true or false")),
    };
    if request.body.len() as u64 > LARGEST {
        return Err(Refusal::TooLarge("this is too large for a registration".into()).into());
    }
    let env = &app.actors.env;
    let interests = env.store.interests();
    let text = match request.json()? {
        DoctorRequest::InForce(ById { id }) => {
            let known = interests.service(&id);
            let known =
                known.ok_or_else(|| Refusal::NotFound("no such application service".into()))?;
            serde_json::to_string(&known.registration).map_err(actors::Error::from)?
        }
        DoctorRequest::Given(Given {
            registration: Value::String(text),
        }) => text,
        DoctorRequest::Given(Given { registration }) => registration.to_string(),
        DoctorRequest::Itself(object) => Value::Object(object).to_string(),
    };
    let file = RegistrationFile {
        name: "registration".to_owned(),
        text: Ok(text),
    };
    let context = ExaminationContext {
        framework,
        known_keys: mscs::registration_keys(),
        ..ExaminationContext::in_force(env, &file)
    };
    let mine = file.registration();
    let in_force = mine.as_ref().and_then(|mine| interests.service(&mine.id));
    let same_url = in_force
        .zip(mine.as_ref())
        .is_some_and(|(known, mine)| known.registration.url == mine.url);
    let dialect = in_force.map(|known| env.dialects.of(&known.registration));
    let report = examine(vec![file], context, timeout.filter(|_| same_url)).await;
    let report = DoctorReport::new(report);
    Json::write(&DoctorResponse { report, dialect })
}
