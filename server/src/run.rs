//! What each command does. Whatever goes wrong is one line on standard error and exit code 1.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::accounts::{Credentials, LogIn, Register, Registrant};
use actors::wire::Naming;
use actors::{Actors, Clock, Ids, Secret, Settings, accounts, ask};
use clap::Parser;
use ruma::OwnedServerName;
use schema::registration::ServiceId;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::app::{self, Options, Running};
use crate::cli::{AddUser, Cli, Command, Dev, Forget, LogFormat};
use crate::config::{Config, PASSWORD_COST};
use crate::mscs;

/// How many bytes of messages between actors a development server keeps.
const TRACE: usize = 4 << 20;

/// Where the time of a seeded server stands still at first: 2025-01-01T00:00:00Z.
const SEEDED_TIME: i64 = 1_735_689_600_000;

/// Do what the command line says.
pub fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let start = Instant::now();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are printed to standard output and are no failure.
            let failed = error.use_stderr();
            let _ = error.print();
            return if failed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let done = match cli.command.unwrap_or(Command::Dev(cli.dev)) {
        Command::Dev(dev) => in_system(run_dev(dev, start)),
        Command::Serve(serve) => in_system(run_serve(serve.config)),
        Command::AddUser(add) => in_system(add_user(add)),
        Command::Appservices(serve) => in_system(list_appservices(serve.config)),
        Command::ForgetAppservice(forget) => in_system(forget_appservice(forget)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("understudy: {why}");
            ExitCode::FAILURE
        }
    }
}

fn in_system<F: Future<Output = Result<(), String>>>(command: F) -> Result<(), String> {
    actix_rt::System::new().block_on(command)
}

fn text(error: impl Display) -> String {
    error.to_string().replace('\n', " ")
}

fn start_log(filter: &str, json: bool) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("log filter {filter:?}: {e}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        log.json().init()
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).init()
    }
    Ok(())
}

fn settings(
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
        proposals: schema::interests::Proposals::default(),
        password_cost: PASSWORD_COST,
        default_room_version: room_version.to_owned(),
        open_registration: false,
    })
}

/// Fill in what the enabled proposals do.
fn with_proposals(options: &mut Options, numbers: &[u16], naming: Naming) -> Result<(), String> {
    let enabled = mscs::enabled(numbers).map_err(|unknown| {
        let known: Vec<String> = mscs::ALL.iter().map(|m| m.number.to_string()).collect();
        format!(
            "proposal {unknown} is not known; known are {}",
            known.join(", ")
        )
    })?;
    let (hooks, proposals) = mscs::hooks(&enabled, naming);
    options.hooks = hooks;
    options.settings.proposals = proposals;
    options.proposals = enabled.iter().map(|m| m.number).collect();
    Ok(())
}

fn options(settings: Settings, database: String) -> Options {
    Options {
        database,
        appservices: None,
        settings,
        hooks: actors::wire::Hooks::default(),
        proposals: Vec::new(),
        clock: Clock::System,
        ids: Ids::Random,
        trace: 0,
        rate_limit: None,
        dev: false,
        lock_wait: schema::Options::default().lock_wait,
        fatal: Arc::new(|why| {
            tracing::error!(why, "the process ends; starting again loses nothing");
            eprintln!("understudy: {why}");
            std::process::exit(1);
        }),
    }
}

/// Start, print what a person needs, run until told to end.
async fn run_dev(dev: Dev, start: Instant) -> Result<(), String> {
    start_log(&dev.log.log, dev.log.log_format == LogFormat::Json)?;
    if !dev.listen.ip().is_loopback() && !dev.allow_remote {
        return Err(format!(
            "{}: a development server listens on loopback only; --allow-remote lifts this",
            dev.listen
        ));
    }
    let listener = app::bind(dev.listen).map_err(text)?;
    let made = |what: &Path, e: std::io::Error| format!("{}: {e}", what.display());
    std::fs::create_dir_all(&dev.data).map_err(|e| made(&dev.data, e))?;
    let appservices = dev
        .appservices
        .unwrap_or_else(|| dev.data.join("appservices"));
    std::fs::create_dir_all(&appservices).map_err(|e| made(&appservices, e))?;
    let database = dev
        .database
        .unwrap_or_else(|| format!("sqlite:{}", dev.data.join("understudy.db").display()));

    let mut options = options(settings(&dev.server_name, None, "11")?, database);
    options.appservices = Some(appservices.clone());
    options.trace = TRACE;
    options.settings.open_registration = true;
    options.dev = true;
    if let Some(seed) = dev.seed {
        options.ids = Ids::counted(seed);
        options.clock = Clock::manual(SEEDED_TIME);
    }
    let all: Vec<u16> = mscs::ALL.iter().map(|m| m.number).collect();
    with_proposals(
        &mut options,
        dev.enable_msc.as_deref().unwrap_or(&all),
        Naming::Unstable,
    )?;
    let running = app::serve(listener, options).await.map_err(text)?;
    let people = people(&running.app.actors, &dev.data).await?;
    announce(&running, &people, &appservices, start.elapsed());
    running.until_signal().await.map_err(text)
}

/// A person of a development server, as kept beside its database: for everybody to see.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Person {
    user_id: String,
    password: String,
    access_token: String,
    device_id: String,
}

/// Alice and Bob: made on the first start, the same afterwards.
async fn people(actors: &Actors, data: &Path) -> Result<Vec<Person>, String> {
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
            && accounts::queries::who(&actors.env, &Secret::from(person.access_token.as_str()))
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
    if std::fs::read_to_string(&file).ok().as_deref() != Some(&json) {
        std::fs::write(&file, json).map_err(|e| format!("{}: {e}", file.display()))?;
    }
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

/// Print a line; whoever does not listen any more misses it, and the server goes on.
macro_rules! say {
    ($($words:tt)*) => {
        // A closed pipe is its reader's decision.
        let _ = writeln!(std::io::stdout(), $($words)*);
    };
}

fn announce(running: &Running, people: &[Person], appservices: &Path, took: Duration) {
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
    if let Some(person) = people.first() {
        let token = &person.access_token;
        say!(
            "  try: curl -H 'Authorization: Bearer {token}' http://{}/_matrix/client/v3/account/whoami",
            running.addr
        );
    }
}

fn configured(path: &Path) -> Result<(Config, Options), String> {
    let config = Config::read(path)?;
    let settings = settings(
        &config.server_name,
        Some(config.observe.clone()),
        &config.default_room_version,
    )?;
    let mut options = options(settings, config.database.clone());
    options.appservices = Some(config.appservices.clone());
    options.settings.open_registration = config.registration;
    options.rate_limit = config.rate_limit.get();
    with_proposals(&mut options, &config.enabled_mscs, config.msc_names)?;
    Ok((config, options))
}

async fn run_serve(path: std::path::PathBuf) -> Result<(), String> {
    let (config, options) = configured(&path)?;
    if !matches!(config.log.format.as_str(), "text" | "json") {
        return Err(format!(
            "{}: log.format {:?}: text or json",
            path.display(),
            config.log.format
        ));
    }
    start_log(&config.log.filter, config.log.format == "json")?;
    let listener = app::bind(config.listen).map_err(text)?;
    let running = app::serve(listener, options).await.map_err(text)?;
    tracing::info!(address = %running.addr, server = config.server_name, "ready");
    running.until_signal().await.map_err(text)?;
    tracing::info!("stopped");
    Ok(())
}

/// Start the actors without a socket, for a command on a server that does not run.
async fn offline(path: &Path) -> Result<Actors, String> {
    let (_, mut options) = configured(path)?;
    options.lock_wait = Duration::ZERO;
    options.appservices = None;
    let store = schema::Store::open(
        &options.database,
        &schema::Options {
            fatal: Arc::clone(&options.fatal),
            lock_wait: options.lock_wait,
        },
    );
    let parts = actors::start::Parts {
        store: store.map_err(text)?,
        clock: options.clock,
        ids: options.ids,
        trace: actors::trace::Trace::new(0),
        settings: options.settings,
        hooks: options.hooks,
        appservices: None,
        fatal: options.fatal,
    };
    actors::start(parts).await.map_err(text)
}

async fn add_user(add: AddUser) -> Result<(), String> {
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
    println!("{}", made.user);
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

async fn list_appservices(path: std::path::PathBuf) -> Result<(), String> {
    let actors = offline(&path).await?;
    let env = &actors.env;
    let rows = env
        .store
        .read(schema::appservices::all)
        .await
        .map_err(text)?;
    for row in rows {
        let id = ServiceId::from(row.appservice_id.as_str());
        let owed = env
            .store
            .read(move |db| schema::inbox::count_owed(db, &id))
            .await
            .map_err(text)?;
        let state = if row.present {
            "present"
        } else {
            "its file is gone"
        };
        let observes = env
            .settings
            .observe
            .as_ref()
            .is_some_and(|ids| ids.iter().any(|id| id.as_str() == row.appservice_id));
        let observes = if observes { "; may observe" } else { "" };
        println!(
            "{}  {}  {state}; to-device messages owed: {owed}{observes}",
            row.appservice_id, row.file
        );
    }
    Ok(())
}

async fn forget_appservice(forget: Forget) -> Result<(), String> {
    let actors = offline(&forget.config).await?;
    let id = ServiceId::from(forget.id.as_str());
    let rows = actors
        .env
        .store
        .read(schema::appservices::all)
        .await
        .map_err(text)?;
    match rows.iter().find(|row| row.appservice_id == forget.id) {
        None => return Err(format!("{}: no such application service", forget.id)),
        Some(row) if row.present => {
            let (_, options) = configured(&forget.config)?;
            let there = options
                .appservices
                .is_some_and(|folder| folder.join(&row.file).exists());
            if there {
                return Err(format!(
                    "{}: its file {} is still there; remove it first",
                    forget.id, row.file
                ));
            }
        }
        Some(_) => {}
    }
    actors
        .env
        .store
        .write_always(move |tx| schema::appservices::forget(tx, &id))
        .await
        .map_err(text)?;
    println!("forgot {}", forget.id);
    Ok(())
}
