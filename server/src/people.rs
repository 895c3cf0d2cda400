//! The two users of a development server, created at its first start and printed with their passwords and tokens.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use actors::accounts::{Credentials, LogIn, Register, Registrant};
use actors::appservices::Problem;
use actors::{Actors, Secret, accounts, ask};
use serde::{Deserialize, Serialize};

use crate::options::text;
use crate::private;
use crate::serve::Running;

/// A user of a development server, as stored in `people.json` beside the database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Person {
    user_id: String,
    password: String,
    access_token: String,
    device_id: String,
}

/// The users Alice and Bob of a development server, created at its first start and reused afterwards.
pub(crate) async fn people(actors: &Actors, data: &Path) -> Result<Vec<Person>, String> {
    let file = data.join("people.json");
    let known: Vec<Person> = std::fs::read_to_string(&file)
        .ok()
        .and_then(|t| serde_json::from_str(&t).ok())
        .unwrap_or_default();
    let mut people = Vec::new();
    for name in ["alice", "bob"] {
        let id = format!("@{name}:{}", actors.env.settings.server_name);
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
        people.push(person(actors, name, before).await?);
    }
    let json = serde_json::to_string_pretty(&people).map_err(text)?;
    let kept = if std::fs::read_to_string(&file).ok().as_deref() == Some(&json) {
        private::restrict(&file)
    } else {
        private::write(&file, &json)
    };
    kept.map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(people)
}

async fn person(actors: &Actors, name: &str, before: Option<&Person>) -> Result<Person, String> {
    let password = before.map_or_else(|| format!("{name}-password"), |p| p.password.clone());
    let device = format!("{}DEVICE", name.to_uppercase());
    let display_name = Some("made by understudy dev".to_owned());
    let id = format!("@{name}:{}", actors.env.settings.server_name);
    let user = ruma::UserId::parse(id).map_err(text)?;
    let login = if accounts::queries::user_exists(&actors.env, &user)
        .await
        .map_err(text)?
    {
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
        .await
        .map_err(text)?
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
        let made = ask(&actors.accounts, register).await.map_err(text)?;
        made.login.ok_or_else(|| format!("{name} got no device"))?
    };
    let access_token = login.token.reveal().to_owned();
    Ok(Person {
        user_id: login.user.to_string(),
        password,
        access_token,
        device_id: login.device.to_string(),
    })
}

/// Print a line. If standard output is closed, the line is lost and the server goes on.
macro_rules! say {
    ($($words:tt)*) => {
        // Ignore a closed pipe.
        let _ = writeln!(std::io::stdout(), $($words)*);
    };
}

/// Print the server's address, its users and example commands.
pub(crate) fn announce(
    running: &Running,
    people: &[Person],
    appservices: &Path,
    problems: &[Problem],
    took: Duration,
) {
    say!(
        "understudy is ready at http://{} after {} ms",
        running.addr,
        took.as_millis()
    );
    for person in people {
        let Person {
            user_id,
            password,
            access_token,
            device_id,
        } = person;
        say!("  {user_id}  password {password}  access token {access_token}  device {device_id}");
    }
    say!(
        "  registrations: drop a file into {}",
        appservices.display()
    );
    for problem in problems {
        say!("  REGISTRATION NOT TAKEN: {problem}");
    }
    if let Some(person) = people.first() {
        let token = &person.access_token;
        say!(
            "  try: curl -H 'Authorization: Bearer {token}' http://{}/_matrix/client/v3/account/whoami",
            running.addr
        );
    }
}
