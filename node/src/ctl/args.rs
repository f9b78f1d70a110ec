//! What can be asked.

use std::{convert::Infallible, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

/// Look at and change a running node through its API.
///
/// Exit codes: 0 done; 1 it could not be done; 2 wrong usage; 3 no such thing, or not in the state asked for.
#[derive(Clone, Debug, Args)]
pub struct CtlArgs {
    /// The node's HTTP API.
    #[arg(
        long,
        global = true,
        env = "UMBEL_SERVER",
        default_value = "http://127.0.0.1:8080"
    )]
    pub server: String,
    /// For people or for programs.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// No colors.
    #[arg(
        long,
        global = true,
        env = "NO_COLOR",
        hide_env_values = true,
        num_args = 0..=1,
        default_missing_value = "1",
        hide_possible_values = true
    )]
    pub no_color: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns.
    #[default]
    Table,
    /// The API's JSON.
    Json,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Whether the node can serve, and what is wrong if not.
    Status,
    /// List devices.
    Devices(DeviceFilter),
    /// Show one device.
    Device {
        /// Which.
        id: String,
    },
    /// Read and write shadows.
    Shadow {
        /// What to do with it.
        #[command(subcommand)]
        command: ShadowCommand,
    },
    /// List MQTT clients.
    Clients {
        /// Most clients to list.
        #[arg(long, default_value_t = 100, value_parser = limit)]
        limit: usize,
        /// List all of them.
        #[arg(long)]
        all: bool,
    },
    /// The nodes of the cluster: which are there, and what is wrong with those that are not.
    Nodes {
        /// Show it again and again, every few seconds.
        #[arg(long)]
        watch: bool,
    },
    /// The shards of the cluster: who owns them and who keeps copies. Those that cannot serve come first.
    Shards {
        /// Show it again and again, every few seconds.
        #[arg(long)]
        watch: bool,
        /// Only those that are not as they should be.
        #[arg(long)]
        trouble: bool,
    },
    /// Move everything away from a node, so that it can be stopped for long or removed.
    Drain {
        /// Its number.
        node: u64,
        /// Wait until it keeps no shard and no client.
        #[arg(long)]
        wait: bool,
    },
    /// Give a drained node shards and clients again.
    Undrain {
        /// Its number.
        node: u64,
    },
    /// Take a node out of the cluster for ever. It cannot come back under its number.
    Remove {
        /// Its number.
        node: u64,
        /// Even if it keeps shards: their other copies must do.
        #[arg(long)]
        force: bool,
    },
    /// Make another of its replicas the owner of a shard.
    Transfer {
        /// The shard's number.
        shard: u16,
        /// The node's number.
        node: u64,
    },
    /// Tokens with which new nodes join.
    Token {
        /// What to do with them.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// End a client's connection.
    Kick {
        /// Which client.
        id: String,
        /// End its session too.
        #[arg(long)]
        clean_session: bool,
        /// Do not publish its will.
        #[arg(long)]
        prevent_will: bool,
    },
}

impl Command {
    /// Whether it is to be shown again and again.
    pub(super) const fn is_watched(&self) -> bool {
        matches!(
            self,
            Self::Nodes { watch: true } | Self::Shards { watch: true, .. }
        )
    }
}

/// Which devices.
#[derive(Clone, Debug, Args)]
pub struct DeviceFilter {
    /// Only in this state: never, online, stale, offline. May be repeated.
    #[arg(long)]
    pub state: Vec<String>,
    /// Only of this type.
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Only at this site.
    #[arg(long)]
    pub site: Option<String>,
    /// Only in this region.
    #[arg(long)]
    pub region: Option<String>,
    /// Only with this tag, name=value. May be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub tag: Vec<String>,
    /// Most devices to list.
    #[arg(long, default_value_t = 100, value_parser = limit)]
    pub limit: usize,
    /// List all of them.
    #[arg(long)]
    pub all: bool,
}

/// What to do with tokens.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make one, good for one node. It is shown this one time.
    Create {
        /// How long it is good: 10m, 1h, 1d.
        #[arg(long, default_value = "1h", value_parser = span)]
        ttl: Duration,
    },
}

/// What to do with a shadow.
#[derive(Clone, Debug, Subcommand)]
pub enum ShadowCommand {
    /// Show it.
    Get {
        /// Whose.
        device: String,
        /// Its name; the classic shadow if none is given.
        #[arg(default_value = "$classic")]
        name: String,
    },
    /// Merge into it.
    #[command(group = clap::ArgGroup::new("sections").required(true).multiple(true))]
    Set {
        /// Whose.
        device: String,
        /// Its name; the classic shadow if none is given.
        #[arg(default_value = "$classic")]
        name: String,
        /// What it should be: a JSON object, @FILE, or - for standard input. null clears.
        #[arg(long, group = "sections", value_name = "JSON")]
        desired: Option<ShadowText>,
        /// What it is, as a device would report.
        #[arg(long, group = "sections", value_name = "JSON")]
        reported: Option<ShadowText>,
        /// Only if it has this version.
        #[arg(long, value_name = "VERSION")]
        if_version: Option<u64>,
        /// Replace the whole shadow instead of merging.
        #[arg(long)]
        replace: bool,
    },
}

/// Where JSON comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShadowText {
    /// The argument itself.
    Json(String),
    /// A file.
    File(PathBuf),
    /// Standard input.
    Input,
}

impl FromStr for ShadowText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix('@') {
            Some(path) => Self::File(PathBuf::from(path)),
            None if text == "-" => Self::Input,
            None => Self::Json(text.to_owned()),
        })
    }
}

fn span(text: &str) -> Result<Duration, String> {
    crate::config::span(text)
        .filter(|span| !span.is_zero())
        .ok_or_else(|| "write 10m, 1h or 1d".to_owned())
}

fn limit(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|limit| *limit > 0)
        .ok_or_else(|| "must be 1 or more".to_owned())
}
