//! The command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::control::Control;
use crate::mscs::Choice;

/// A stand-in Matrix homeserver for encrypted application services.
///
/// Without a command, starts a development server, like `understudy dev`.
#[derive(Debug, Parser)]
#[command(name = "understudy", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of the development server that starts without a command.
    #[command(flatten)]
    pub dev: Dev,
}

/// The command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a development server: loopback only, two users with tokens, pages that show what happens
    Dev(Dev),
    /// Start a long-lived server: configured by a file, registration closed, rate limits on
    Serve(Serve),
    /// Add a user (while the server is stopped); the password is prompted for, or read from standard input
    AddUser(AddUser),
    /// List the application services in the database, and what each is owed (while the server is stopped)
    Appservices(Serve),
    /// Delete an application service whose file is gone, with everything that it is owed (while the server is stopped)
    ForgetAppservice(ForgetOptions),
    /// Check registration files against each other and the server's, and test whether their services answer correctly
    Doctor(Doctor),
    /// List the proposals (MSCs) that this server implements, with their names and what switches them on
    Mscs,
    /// Begin a proposal in understudy's source code: a folder with a data sheet, hooks, and a scenario
    NewMsc(crate::propose::NewMsc),
    /// Play conversations between people, bridges and a homeserver that are written as text
    #[command(subcommand)]
    Scenario(crate::scenario::ScenarioCommand),
    /// Play the scenarios of application services against a homeserver, and print a score by clause of the specification
    Conformance(crate::conformance::ConformanceOptions),
    /// Play scenarios on two homeservers, and print where they differ
    Compare(crate::compare::CompareOptions),
    /// Play a scenario, and write a page about it for reviewers of a proposal: clauses, names, sequence, transcript
    Evidence(crate::evidence::EvidenceOptions),
    /// A command for a running development server.
    #[command(flatten)]
    Control(Control),
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text, one line for each event
    Text,
    /// One JSON object for each event
    Json,
}

/// Options of the log, which is written to standard error.
#[derive(Debug, Clone, Args)]
pub struct LogOptions {
    /// The filter, such as `info` or `actors=debug,warn`
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "warn",
        env = "UNDERSTUDY_LOG"
    )]
    pub log: String,
    /// The format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// The options of a development server.
#[derive(Debug, Args)]
pub struct Dev {
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8008")]
    pub listen: SocketAddr,
    /// The port to listen on at 127.0.0.1, instead of --listen; 0 for a free one
    #[arg(long, value_name = "PORT", conflicts_with = "listen")]
    pub port: Option<u16>,
    /// Print one line of JSON when the server is ready, and nothing else: its address, its users with their tokens, its folders
    #[arg(long)]
    pub print_json: bool,
    /// Stop when standard input ends. The parent process keeps a pipe to it open, which the system closes when the parent ends
    #[arg(long)]
    pub exit_with_parent: bool,
    /// The server's name: the part of its users' ids after the colon
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub server_name: String,
    /// The folder for the SQLite file and the registrations [default: understudy-data; with --database :memory: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The database: `sqlite:PATH`, `postgres://…`, or `:memory:` for one of which nothing is left when the server ends
    /// [default: understudy.db in the data folder]
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// The folder of registration files, which is watched [default: appservices in the data folder]
    #[arg(long, value_name = "DIR")]
    pub appservices: Option<PathBuf>,
    /// The proposals (MSCs) to switch on, by number, separated by commas; +N adds to the defaults and -N removes from them
    /// [default: those that are on in docker/server.toml]
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    pub enable_msc: Option<Vec<Choice>>,
    /// This server's own experiments to switch on, by name, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub enable_experiment: Vec<String>,
    /// Limit how often each user may claim keys of each device, as a long-lived server does
    #[arg(long)]
    pub claim_limit: bool,
    /// Make runs repeatable: count identifiers from this seed, and stop the clock until it is advanced through /_understudy/
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Allow an address that other machines can reach, although the users' passwords are well known
    #[arg(long)]
    pub allow_remote: bool,
    /// A further host name under which the pages at /_understudy/ are served, besides those of the loopback address; may be
    /// repeated
    #[arg(long, value_name = "HOST")]
    pub allow_host: Vec<String>,
    /// The log.
    #[command(flatten)]
    pub log: LogOptions,
}

impl Dev {
    /// The address to listen on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.map_or(self.listen, |port| {
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        })
    }
}

/// The options of a long-lived server.
#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration file (TOML); docker/server.toml shows every setting
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Options of `add-user`.
#[derive(Debug, Args)]
pub struct AddUser {
    /// The configuration file of the server, which must be stopped
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The localpart of the new user's id
    pub username: String,
}

/// Options of `forget-appservice`.
#[derive(Debug, Args)]
pub struct ForgetOptions {
    /// The configuration file of the server, which must be stopped
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The service's id
    pub id: String,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The registration files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The server's name; without it, patterns are compared for any server name
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// The folder of the active registrations, to compare with
    #[arg(long, value_name = "DIR")]
    pub appservices: Option<PathBuf>,
    /// Take the server's name and the folder from its configuration file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server_name", "appservices"])]
    pub config: Option<PathBuf>,
    /// The framework that the services are built with; what other frameworks need is not reported
    #[arg(long, value_name = "NAME", value_parser = frameworks())]
    pub framework: Option<String>,
    /// Check the files only, without contacting the services
    #[arg(long)]
    pub offline: bool,
    /// How many seconds to wait for each answer of a service
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub timeout: u64,
    /// Exit with code 1 for warnings too, not only for errors
    #[arg(long)]
    pub strict: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn frameworks() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(crate::doctor::frameworks::ALL.iter().map(|f| f.name))
}
