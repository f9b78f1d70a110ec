//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::ctl::CtlArgs;

/// Device shadows, presence and MQTT for fleets: broker, shadow service and registry in one program.
#[derive(Debug, Parser)]
#[command(name = "umbel", version, max_term_width = 80)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node for development: makes certificates, opens every port on loopback, plays devices.
    Dev(DevArgs),
    /// Start a node from a configuration file.
    Node(NodeArgs),
    /// Look at and change a running node through its API.
    Ctl(CtlArgs),
    /// Make a cluster, or make this node part of one, before its first start.
    Cluster(ClusterArgs),
    /// Write everything a running cluster holds into one file.
    Backup(BackupArgs),
    /// Make a new cluster of one node from a backup; others then join it.
    Restore(RestoreArgs),
    /// Make certificates with the local authority.
    Ca(CaArgs),
    /// Check a configuration file, or show what is in force.
    Config(ConfigArgs),
    /// Passwords for apps.
    User(UserArgs),
}

/// `umbel dev`
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Folder for data and certificates; kept between runs.
    #[arg(long, default_value = "umbel-data")]
    pub data: PathBuf,
    /// How many nodes, each a process of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    /// How many simulated devices to play.
    #[arg(long, default_value_t = 0)]
    pub devices: usize,
    /// Let the system choose the ports.
    #[arg(long)]
    pub any_port: bool,
    /// Write the endpoints to this file, as JSON, once they answer.
    #[arg(long, value_name = "FILE")]
    pub ports_file: Option<PathBuf>,
    /// Additional names or addresses for the server certificate.
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
}

/// `umbel node`
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the endpoints to this file, as JSON, once they answer.
    #[arg(long, value_name = "FILE")]
    pub ports_file: Option<PathBuf>,
    /// End when standard input ends, as it does with the process that started this one.
    #[arg(long, hide = true)]
    pub until_eof: bool,
}

/// `umbel cluster`
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// How a node becomes part of a cluster. Both are done once, while the node does not run.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a new cluster, with this node as its first.
    Init {
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Make this node part of a cluster that runs.
    Join {
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Address of the link of any node of the cluster; default: the seeds of the configuration. May be repeated.
        #[arg(long, value_name = "HOST:PORT")]
        seed: Vec<String>,
        /// From `umbel ctl token create`; good for one node, for a while.
        #[arg(long, env = "UMBEL_JOIN_TOKEN", hide_env_values = true)]
        token: String,
    },
}

/// `umbel backup`
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The HTTP API of any node.
    #[arg(long, env = "UMBEL_SERVER", default_value = "http://127.0.0.1:8080")]
    pub server: String,
    /// The file to write; it must not exist.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// `umbel restore`
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup.
    #[arg(long = "in", value_name = "FILE")]
    pub input: PathBuf,
    /// The configuration file (TOML) of the node; its data folder must be empty.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// `umbel ca`
#[derive(Debug, Args)]
pub struct CaArgs {
    /// Folder of the authority.
    #[arg(long, default_value = "umbel-data/ca", global = true)]
    pub dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: CaCommand,
}

/// What the authority can do.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make an authority in an empty folder.
    Init {
        /// Its name.
        #[arg(long, default_value = "Umbel local authority")]
        name: String,
    },
    /// Write a certificate and key for a device.
    Issue {
        /// The device id.
        device: String,
        /// Folder to write to; default: `devices` beside the authority.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Write a certificate and key for a server.
    Server {
        /// DNS names and addresses by which clients reach it.
        #[arg(required = true)]
        names: Vec<String>,
        /// Folder to write to; default: the authority's.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

/// `umbel config`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What can be done with a configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a file and everything it names; says nothing when all is well.
    Check {
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print what would be in force.
    Show {
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Say where each value comes from.
        #[arg(long)]
        origin: bool,
    },
}

/// `umbel user`
#[derive(Debug, Args)]
pub struct UserArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: UserCommand,
}

/// What can be done with passwords.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Read a password from standard input and print the hash for `password_hash`.
    Hash,
}
