//! The files of `node/deploy`, and whether what they name is what a node shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A file that we ship.
pub fn deploy(file: &str) -> PathBuf {
    root().join("node/deploy").join(file)
}

/// What one expression asks of a metric.
#[derive(Debug)]
struct Asked {
    name: String,
    /// Label → value, where exactly one value will do.
    labels: Vec<(String, String, bool)>,
}

/// Every metric of ours in a text of expressions, with its matchers.
fn asked(text: &str) -> Vec<Asked> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("umbel_") {
        rest = &rest[at..];
        let end = rest
            .find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_')
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let matchers = after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
            .map_or("", |(matchers, _)| matchers);
        let labels = matchers.split(", ").filter_map(|matcher| {
            let at = matcher.find(['=', '!'])?;
            let (label, value) = matcher.split_at(at);
            let is_exact = value.starts_with("=\"");
            let value = value.trim_start_matches(['=', '!', '~']).trim_matches('"');
            Some((label.to_owned(), value.to_owned(), is_exact))
        });
        found.push(Asked {
            name: name.to_owned(),
            labels: labels.collect(),
        });
        rest = after;
    }
    found
}

/// Expressions of the dashboard.
fn panels() -> Vec<String> {
    let text = fs::read_to_string(deploy("grafana/umbel.json")).unwrap();
    let board: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(board["schemaVersion"], 38);
    let mut seen = BTreeSet::new();
    let mut expressions = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        assert!(
            seen.insert(panel["id"].as_u64()),
            "a panel's id is there twice"
        );
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
            expressions.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    expressions
}

/// Expressions of the alerts.
fn alerts() -> Vec<String> {
    let text = fs::read_to_string(deploy("prometheus/alerts.yml")).unwrap();
    let mut expressions = Vec::new();
    for rule in text.split("      - ").skip(1) {
        let Some((_, expression)) = rule.split_once("expr:") else {
            continue;
        };
        let end = ["\n        for:", "\n        labels:", "\n      #"]
            .iter()
            .filter_map(|next| expression.find(next))
            .min();
        expressions.push(expression[..end.unwrap_or(expression.len())].to_owned());
    }
    assert!(expressions.len() > 20);
    expressions
}

/// Names of all metrics, by the constants that hold them.
fn constants() -> BTreeSet<String> {
    let mut folders = vec![root()];
    let mut names = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "tests" {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let quoted = text.split('"').filter(|part| part.starts_with("umbel_"));
                names.extend(quoted.map(str::to_owned));
            }
        }
    }
    names
}

/// Compares the labels that dashboard and alerts ask for with a metrics page; how many, and the metrics that it lacks.
pub fn compare(page: &str) -> (usize, BTreeSet<String>) {
    let names = constants();
    // Name → the label sets of its series.
    let mut series: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("umbel_")) {
        let (name, labels) = line.split_once(['{', ' ']).unwrap();
        series.entry(name).or_default().push(labels);
    }
    let (mut compared, mut unseen) = (0, BTreeSet::new());
    for expression in panels().into_iter().chain(alerts()) {
        let all = asked(&expression);
        assert!(!all.is_empty() || expression.contains("up{") || expression.contains("umbel:"));
        for Asked { name, labels } in all {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(&name);
            assert!(names.contains(base), "{name} is no metric: {expression}");
            let Some(shown) = series.get(name.as_str()) else {
                unseen.insert(base.to_owned());
                continue;
            };
            for (label, value, is_exact) in labels {
                if ["job", "instance"].contains(&label.as_str()) {
                    continue;
                }
                let wanted = if is_exact {
                    format!("{label}=\"{value}\"")
                } else {
                    format!("{label}=\"")
                };
                let fits = shown.iter().any(|labels| labels.contains(&wanted));
                assert!(fits, "{name} has no {wanted}: {expression}");
                compared += 1;
            }
        }
    }
    (compared, unseen)
}
