//! Commands that run while the server is stopped: they open its database and start no sender.

use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use actors::accounts::{Register, Registrant};
use actors::appservices::rules::{Plan, StoredRegistrations};
use actors::services::Registration;
use actors::{Actors, appservices, ask};
use schema::ServiceId;

use crate::cli::{AddUser, ForgetOptions};
use crate::options::{configured, make_database, text};
use crate::say::say;

/// The most items printed for each appservice of those that were set aside because they cannot be sent.
const SHOWN: i64 = 10;

/// Start the actors without an HTTP server.
async fn offline(path: &Path) -> Result<Actors, String> {
    let (_, mut options) = configured(path)?;
    options.lock_wait = Duration::ZERO;
    options.appservices = None;
    make_database(&options.database)?;
    options.start_actors().await.map_err(text)
}

/// Add a user, even if registration is closed.
pub(crate) async fn add_user(add: AddUser) -> Result<(), String> {
    let actors = offline(&add.config).await?;
    let password = read_password()?;
    let register = Register {
        by: Registrant::Operator {
            password: password.into(),
        },
        username: Some(add.username),
        device: None,
        display_name: None,
        inhibit_login: true,
    };
    let made = ask(&actors.accounts, register).await.map_err(text)?;
    say!("{}", made.user);
    Ok(())
}

fn read_password() -> Result<String, String> {
    let password = if std::io::stdin().is_terminal() {
        rpassword::prompt_password("password: ").map_err(|e| format!("password: {e}"))?
    } else {
        let mut text = String::new();
        std::io::stdin()
            .take(4096)
            .read_to_string(&mut text)
            .map_err(|e| format!("password: {e}"))?;
        text.trim_end_matches(['\n', '\r']).to_owned()
    };
    if password.is_empty() {
        Err("the password is empty".to_owned())
    } else {
        Ok(password)
    }
}

/// What the next start of the server would do: the stored appservices, and the changes that the files in the folder would make.
async fn planned(actors: &Actors, config: &Path) -> Result<(StoredRegistrations, Plan), String> {
    let (_, options) = configured(config)?;
    let known = actors.env.store.read(appservices::known).await;
    let known = known.map_err(text)?;
    let plan = match options.appservices {
        Some(folder) => appservices::planned(&folder, &known, &options.settings),
        None => Plan::default(),
    };
    Ok((known, plan))
}

/// Print the stored appservices, how many items each is owed, and the registration files that cannot be used.
pub(crate) async fn list_appservices(path: std::path::PathBuf) -> Result<(), String> {
    let actors = offline(&path).await?;
    let (rows, plan) = planned(&actors, &path).await?;
    let env = &actors.env;
    let observe = env.settings.observe.as_deref();
    let mut known = Vec::new();
    for row in rows.rows {
        let id = ServiceId::from(row.appservice_id.as_str());
        let owed = env
            .store
            .read(move |db| {
                let (owed, aside) = (
                    schema::queues::count_messages(db, &id)?,
                    schema::set_aside::count(db, &id)?,
                );
                Ok::<_, schema::Error>((owed, aside, schema::set_aside::oldest(db, &id, SHOWN)?))
            })
            .await
            .map_err(text)?;
        let (owed, aside, oldest) = owed;
        let state = if row.present {
            "present"
        } else {
            "its file is gone"
        };
        let registration: Registration = serde_json::from_str(&row.registration).map_err(text)?;
        let shared = registration.shared_users().join(", ");
        let granted = observe.is_some_and(|ids| ids.contains(&registration.id));
        let observes = match (shared.is_empty(), granted) {
            (true, false) => String::new(),
            (true, true) => "; observe names it, but it has no namespace to observe".to_owned(),
            (false, true) => format!("; observes {shared}"),
            (false, false) => {
                format!("; would observe {shared}, which observe does not grant it")
            }
        };
        say!(
            "{}  {}  {state}; to-device messages owed: {owed}{observes}",
            row.appservice_id,
            row.file
        );
        if aside > 0 {
            say!("  {aside} that cannot be sent to it are set aside:");
        }
        for row in oldest {
            say!("    {} at {}: {}", row.kind, row.position, row.why);
        }
        known.push(registration.id);
    }
    for id in observe
        .into_iter()
        .flatten()
        .filter(|id| !known.contains(id))
    {
        say!("{id}  observe names it, and it is not registered");
    }
    for problem in plan.problems {
        say!("{problem}");
    }
    Ok(())
}

/// Delete an appservice whose registration file is gone, with all items that it is owed.
pub(crate) async fn forget_appservice(forget: ForgetOptions) -> Result<(), String> {
    let actors = offline(&forget.config).await?;
    let id = ServiceId::from(forget.id.as_str());
    let (known, plan) = planned(&actors, &forget.config).await?;
    if let Some(held) = plan.in_force.get(&id) {
        return Err(format!(
            "{}: its file {} is still there; remove it first",
            forget.id, held.file
        ));
    }
    let mut rows = known.rows.iter();
    if rows.all(|row| row.appservice_id != forget.id) {
        return Err(format!("{}: no such application service", forget.id));
    }
    actors
        .env
        .store
        .write_always(move |tx| schema::appservices::forget(tx, &id))
        .await
        .map_err(text)?;
    say!("forgot {}", forget.id);
    Ok(())
}
