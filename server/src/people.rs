//! The two users of a development server, created at its first start.

use std::path::Path;

use actors::accounts::{Credentials, LogIn, Register, Registrant};
use actors::{Actors, Secret, accounts, ask};
use serde::{Deserialize, Serialize};

use crate::options::text;
use crate::private;
use ruma::UserId;

/// A user of a development server, as stored in `people.json` beside the database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) user_id: String,
    pub(crate) password: String,
    pub(crate) access_token: String,
    pub(crate) device_id: String,
}

/// The users Alice and Bob of a development server, created at its first start and reused afterwards. `data` is the folder in which
/// they are kept; a database in memory has none.
pub(crate) async fn people(actors: &Actors, data: Option<&Path>) -> Result<Vec<Person>, String> {
    let file = data.map(|data| data.join("people.json"));
    let known: Vec<Person> = file
        .as_ref()
        .and_then(|file| std::fs::read_to_string(file).ok())
        .and_then(|t| serde_json::from_str(&t).ok())
        .unwrap_or_default();
    let (mut people, mut left_out) = (Vec::new(), Vec::new());
    for name in ["alice", "bob"] {
        let id = format!("@{name}:{}", actors.env.settings.server_name);
        let user = ruma::UserId::parse(id.as_str()).map_err(text)?;
        let before = known.iter().find(|p| p.user_id == id);
        if let Some(person) = before
            && accounts::queries::identity_of(
                &actors.env,
                &Secret::from(person.access_token.as_str()),
            )
            .await
            .map_err(text)?
            .is_some()
        {
            people.push(person.clone());
            continue;
        }
        match person(actors, name, &user, before).await {
            Ok(person) => people.push(person),
            // The account was deactivated, or its password changed. That is not undone.
            Err(actors::Error::Refused(why)) => {
                tracing::warn!(
                    "{id} cannot log in and is left out; another --data begins anew: {why}"
                );
                left_out.extend(before.cloned());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    if let Some(file) = file {
        let json =
            serde_json::to_string_pretty(&[&people[..], &left_out].concat()).map_err(text)?;
        let kept = if std::fs::read_to_string(&file).ok().as_deref() == Some(&json) {
            private::restrict(&file)
        } else {
            private::write(&file, &json)
        };
        kept.map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(people)
}

async fn person(
    actors: &Actors,
    name: &str,
    user: &UserId,
    before: Option<&Person>,
) -> actors::Result<Person> {
    let password = before.map_or_else(|| format!("{name}-password"), |p| p.password.clone());
    let device = format!("{}DEVICE", name.to_uppercase());
    let display_name = Some("made by understudy dev".to_owned());
    let login = if accounts::queries::user_exists(&actors.env, user).await? {
        let credentials = Credentials::Password {
            user: name.to_owned(),
            password: password.as_str().into(),
        };
        ask(
            &actors.accounts,
            LogIn {
                credentials,
                device: Some(device.into()),
                display_name,
            },
        )
        .await?
    } else {
        let register = Register {
            by: Registrant::Operator {
                password: password.as_str().into(),
            },
            username: Some(name.to_owned()),
            device: Some(device.into()),
            display_name,
            inhibit_login: false,
        };
        let made = ask(&actors.accounts, register).await?;
        made.login
            .ok_or(actors::Error::Failed("the log-in of a new user"))?
    };
    let access_token = login.token.reveal().to_owned();
    Ok(Person {
        user_id: login.user.to_string(),
        password,
        access_token,
        device_id: login.device.to_string(),
    })
}
