//! Builds the options of a server from the command line or a configuration file.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use actors::wire::Namings;
use actors::{Clock, Ids, Settings};
use ruma::OwnedServerName;
use schema::ServiceId;

use crate::config::{Config, PASSWORD_COST};
use crate::figures::Figures;
use crate::http::door::Door;
use crate::http::limits::{CLAIMS, LOGINS, QUESTIONS, READS, REQUESTS};
use crate::start::Options;
use crate::{experiments, mscs, private};

/// An error as one line for the operator.
pub(crate) fn text(error: impl Display) -> String {
    error.to_string().replace('\n', " ")
}

pub(crate) fn settings(
    server_name: &str,
    observe: Option<Vec<String>>,
    room_version: &str,
) -> Result<Settings, String> {
    let server_name = OwnedServerName::try_from(server_name)
        .map_err(|e| format!("server name {server_name:?}: {e}"))?;
    if !matches!(room_version, "11" | "12") {
        return Err(format!(
            "default_room_version {room_version:?}: this server knows 11 and 12"
        ));
    }
    Ok(Settings {
        server_name,
        observe: observe.map(|ids| ids.into_iter().map(ServiceId::from).collect()),
        proposals: actors::services::Proposals::default(),
        password_cost: PASSWORD_COST,
        default_room_version: room_version.to_owned(),
        open_registration: false,
        presence: true,
    })
}

/// Add what the enabled proposals change.
pub(crate) fn with_proposals(
    options: &mut Options,
    numbers: &[u16],
    namings: impl Into<Namings>,
) -> Result<(), String> {
    let enabled = mscs::enabled(numbers).map_err(|unknown| {
        let known: Vec<String> = mscs::ALL.iter().map(|m| m.number().to_string()).collect();
        format!(
            "proposal {unknown} is not known; known are {}",
            known.join(", ")
        )
    })?;
    options.enable(enabled, namings);
    Ok(())
}

pub(crate) fn with_experiments(options: &mut Options, names: &[String]) -> Result<(), String> {
    let proposals = &mut options.settings.proposals;
    experiments::switch_on(names, &mut options.hooks, proposals)
}

pub(crate) fn options(settings: Settings, database: String) -> Options {
    Options {
        database,
        appservices: None,
        settings,
        hooks: actors::hooks::Hooks::default(),
        proposals: Vec::new(),
        clock: Clock::System,
        ids: Ids::Random,
        trace: 0,
        door: Door::default(),
        figures: Figures::default(),
        metrics: None,
        dev: false,
        lock_wait: schema::StoreOptions::default().lock_wait,
        faults: schema::faults::Faults::default(),
        actor_faults: actors::runtime::faults::DeliveryFaults::default(),
        fatal: Arc::new(|why| {
            tracing::error!(why, "the process ends; restarting it loses nothing");
            eprintln!("understudy: {why}");
            std::process::exit(1);
        }),
    }
}

/// Create the database file, readable by its owner only.
pub(crate) fn make_database(url: &str) -> Result<(), String> {
    private::make_database(url).map_err(|e| format!("{url}: {e}"))
}

/// Read a configuration file and the options that it describes.
pub(crate) fn configured(path: &Path) -> Result<(Config, Options), String> {
    let config = Config::read(path)?;
    let settings = settings(
        &config.server_name,
        Some(config.observe.clone()),
        &config.default_room_version,
    )?;
    let mut options = options(settings, config.database.clone());
    options.appservices = Some(config.appservices.clone());
    options.settings.open_registration = config.registration;
    options.settings.presence = config.presence;
    options.metrics = config.metrics;
    options.door = Door {
        trusted_proxies: config.trusted_proxies.clone(),
        rate_limit: config.rate_limit.get(REQUESTS),
        claim_limit: config.claim_limit.get(CLAIMS),
        read_limit: config.read_limit.get(READS),
        login_limit: config.login_limit.get(LOGINS),
        question_limit: config.question_limit.get(QUESTIONS),
        anonymous_questions: config.anonymous_questions,
        hosts: Vec::new(),
    };
    let numbers = mscs::with_specified(&config.enabled_mscs);
    with_proposals(&mut options, &numbers, config.msc_names.clone())?;
    with_experiments(&mut options, &config.experiments)?;
    Ok((config, options))
}
