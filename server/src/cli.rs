//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A stand-in Matrix homeserver for encrypted application services.
///
/// Without a command it starts a development server, as `understudy dev` does.
#[derive(Debug, Parser)]
#[command(name = "understudy", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How the development server is started when no command is given.
    #[command(flatten)]
    pub dev: Dev,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a development server: loopback only, two people ready to use, everything to be seen
    Dev(Dev),
    /// Start a long-lived server: everything from one file, registration closed, rate limits on
    Serve(Serve),
    /// Add a person (while the server does not run); the password is asked for, or read from standard input
    AddUser(AddUser),
    /// List the application services the database knows, and what each is owed (while the server does not run)
    Appservices(Serve),
    /// Delete an application service whose file is gone, and everything it is owed (while the server does not run)
    ForgetAppservice(Forget),
    /// Examine registration files, beside one another and the server's, and ask their services whether they answer as they should
    Doctor(Doctor),
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for a person
    Text,
    /// A JSON object for a machine
    Json,
}

/// Where logs go: standard error, as much as the filter lets through.
#[derive(Debug, Clone, Args)]
pub struct Log {
    /// What is logged, such as `info` or `actors=debug,warn`
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "warn",
        env = "UNDERSTUDY_LOG"
    )]
    pub log: String,
    /// How it is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// The options of a development server.
#[derive(Debug, Args)]
pub struct Dev {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8008")]
    pub listen: SocketAddr,
    /// The server's name: what stands after the colon of its users' ids
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub server_name: String,
    /// Where the SQLite file and the registrations are kept
    #[arg(long, value_name = "DIR", default_value = "understudy-data")]
    pub data: PathBuf,
    /// The database: `sqlite:PATH` or `postgres://…` [default: understudy.db in the data folder]
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// The folder that is watched for registration files [default: appservices in the data folder]
    #[arg(long, value_name = "DIR")]
    pub appservices: Option<PathBuf>,
    /// The proposals to switch on, by number, separated by commas [default: those that are on in docker/server.toml]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub enable_msc: Option<Vec<u16>>,
    /// The experiments of this server's own to switch on, by name, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub enable_experiment: Vec<String>,
    /// Limit how often each user may claim keys of each device, as a long-lived server does
    #[arg(long)]
    pub claim_limit: bool,
    /// Count identifiers from this seed and let time stand still until it is moved by hand
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Listen on an address that others can reach, although people and tokens are made for everybody to see
    #[arg(long)]
    pub allow_remote: bool,
    /// A name, besides those of the loopback address, under which the pages at /_understudy/ may be asked for; may be repeated
    #[arg(long, value_name = "HOST")]
    pub allow_host: Vec<String>,
    /// Logs.
    #[command(flatten)]
    pub log: Log,
}

/// The options of a long-lived server.
#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration file (TOML); docker/server.toml shows every setting
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Who is added.
#[derive(Debug, Args)]
pub struct AddUser {
    /// The configuration file of the server; it must not be running
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The localpart of the new user's id
    pub username: String,
}

/// Which service is forgotten.
#[derive(Debug, Args)]
pub struct Forget {
    /// The configuration file of the server; it must not be running
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The service's id
    pub id: String,
}

/// Which registrations are examined, and how.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The registration files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The server's name; without one, patterns are compared as if any server could be meant
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// The folder of the registrations in force, which are compared with
    #[arg(long, value_name = "DIR")]
    pub appservices: Option<PathBuf>,
    /// Take the server's name and the folder from its configuration file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server_name", "appservices"])]
    pub config: Option<PathBuf>,
    /// Ask only for what services built with this framework need
    #[arg(long, value_name = "NAME", value_parser = frameworks())]
    pub framework: Option<String>,
    /// Look at the files only: ask no service
    #[arg(long)]
    pub offline: bool,
    /// How many seconds a service may take for each answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub timeout: u64,
    /// End with exit code 1 for warnings too, not only for errors
    #[arg(long)]
    pub strict: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn frameworks() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(crate::doctor::frameworks::ALL.iter().map(|f| f.name))
}
