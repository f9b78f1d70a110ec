//! From file and environment to raw values, remembering where each came from.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{Config, ConfigError, raw::Raw, resolve, suggest::with_suggestion};

const PREFIX: &str = "UMBEL__";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
}

/// A configuration that was checked, and the origin of every value that is not a default.
#[derive(Debug)]
pub struct Loaded {
    /// What will be used.
    pub config: Config,
    /// What was written, defaults filled in.
    pub(super) raw: Raw,
    /// Dotted key → origin.
    pub(super) origins: BTreeMap<String, Origin>,
}

/// Reads the file (if one is named), lays the environment over it, and checks everything.
pub fn load(
    path: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let mut origins = BTreeMap::new();
    let mut table = match path {
        Some(path) => {
            let table = read(path)?;
            mark(&table, "", &Origin::File(path.to_owned()), &mut origins);
            table
        },
        None => Table::new(),
    };
    let mut raw = Raw::default();
    if path.is_some() {
        raw = typed(&table, || path_shown(path))?;
    }
    for (name, text) in environment.filter(|(name, _)| name.starts_with(PREFIX)) {
        overlay(&mut table, &name, &text, &mut origins)?;
        raw = typed(&table, || format!("environment variable {name}"))?;
    }
    let config = resolve::resolve(&raw).map_err(|error| placed(error, path, &origins))?;
    Ok(Loaded {
        config,
        raw,
        origins,
    })
}

fn path_shown(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

fn typed(table: &Table, place: impl Fn() -> String) -> Result<Raw, ConfigError> {
    let typed = table.clone().try_into();
    typed.map_err(|e: toml::de::Error| ConfigError::Syntax {
        place: place(),
        detail: with_suggestion(e.message()),
    })
}

/// Says where a value that cannot be used was set. Lists and what is missing can only be written in the file.
fn placed(
    error: ConfigError,
    path: Option<&Path>,
    origins: &BTreeMap<String, Origin>,
) -> ConfigError {
    match error {
        ConfigError::Value { key, detail, .. } => {
            let place = match origins.get(&key) {
                Some(Origin::Environment(name)) => format!("environment variable {name}: "),
                Some(Origin::File(_)) | None => {
                    path.map_or_else(String::new, |path| format!("{}: ", path.display()))
                },
            };
            ConfigError::Value { place, key, detail }
        },
        other @ (ConfigError::File { .. } | ConfigError::Syntax { .. }) => other,
    }
}

/// Parses the file into raw values first, so that an unknown key is reported with its line.
fn read(path: &Path) -> Result<Table, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::File {
        path: path.to_owned(),
        source,
    })?;
    let syntax = |e: toml::de::Error| {
        let line = e.span().map_or(0, |span| {
            1 + text
                .bytes()
                .take(span.start)
                .filter(|byte| *byte == b'\n')
                .count()
        });
        ConfigError::Syntax {
            place: format!("{}:{line}", path.display()),
            detail: with_suggestion(e.message()),
        }
    };
    toml::from_str::<Raw>(&text).map_err(syntax)?;
    toml::from_str::<Table>(&text).map_err(syntax)
}

fn mark(table: &Table, prefix: &str, origin: &Origin, origins: &mut BTreeMap<String, Origin>) {
    for (key, value) in table {
        let path = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        if let Value::Table(inner) = value {
            mark(inner, &path, origin, origins);
        } else {
            origins.insert(path, origin.clone());
        }
    }
}

/// `UMBEL__SECTION__KEY=value` sets `section.key`. A value that is TOML is taken as such, else as text.
fn overlay(
    table: &mut Table,
    name: &str,
    text: &str,
    origins: &mut BTreeMap<String, Origin>,
) -> Result<(), ConfigError> {
    let syntax = |detail: &str| ConfigError::Syntax {
        place: format!("environment variable {name}"),
        detail: detail.to_owned(),
    };
    let path = name.get(PREFIX.len()..).unwrap_or_default().to_lowercase();
    let Some((section, key)) = path.split_once("__") else {
        return Err(syntax("expected UMBEL__SECTION__KEY"));
    };
    let value = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    let entry = table
        .entry(section)
        .or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(inner) = entry else {
        return Err(syntax("names a list; lists are written in the file"));
    };
    inner.insert(key.to_owned(), value);
    origins.insert(
        format!("{section}.{key}"),
        Origin::Environment(name.to_owned()),
    );
    Ok(())
}
