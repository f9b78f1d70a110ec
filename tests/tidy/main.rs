//! The house rules that a compiler does not check.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Lines of a file, tests not counted, above which it is split by meaning.
const LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, ending, found);
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(root(), ".rs", &mut found);
    assert!(found.len() > 50, "the sources were not found");
    found
}

/// Package → what it depends on, tests not counted.
fn arrows() -> BTreeMap<String, Vec<String>> {
    let mut manifests = Vec::new();
    files(root(), "Cargo.toml", &mut manifests);
    manifests
        .into_iter()
        .filter_map(|path| {
            let manifest: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
            let name = manifest.get("package")?.get("name")?.as_str()?.to_owned();
            let uses = manifest.get("dependencies").and_then(|d| d.as_table());
            Some((
                name,
                uses.map_or_else(Vec::new, |uses| uses.keys().cloned().collect()),
            ))
        })
        .collect()
}

#[test]
fn every_arrow_is_drawn_in_the_floor_plan() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("umbel-core", &[][..]),
        ("umbel-storage", &["umbel-core"]),
        ("umbel-cluster", &["umbel-core", "umbel-storage"]),
        ("umbel-actors", &["umbel-core", "umbel-storage"]),
        ("umbel-pki", &["umbel-core"]),
        (
            "umbel-mqtt",
            &["umbel-core", "umbel-storage", "umbel-actors"],
        ),
        ("umbel-http", &["umbel-core", "umbel-actors", "umbel-mqtt"]),
        (
            "umbel-node",
            &[
                "umbel-core",
                "umbel-storage",
                "umbel-cluster",
                "umbel-actors",
                "umbel-mqtt",
                "umbel-http",
                "umbel-pki",
            ],
        ),
        ("umbel-loadtest", &["umbel-core"]),
        ("umbel-chaos", &["umbel-core"]),
        ("umbel-tests", &["umbel-core"]),
    ]);
    for (package, uses) in arrows() {
        for used in uses.iter().filter(|used| used.starts_with("umbel-")) {
            let drawn = allowed
                .get(package.as_str())
                .is_some_and(|a| a.contains(&used.as_str()));
            assert!(drawn || package == "umbel-fuzz", "{package} uses {used}");
        }
    }
}

#[test]
fn each_library_stays_in_its_room() {
    let rooms: &[(&str, &[&str])] = &[
        ("sled", &["umbel-storage"]),
        ("raft-engine", &["umbel-storage"]),
        ("bincode", &["umbel-storage", "umbel-cluster"]),
        ("openraft", &["umbel-cluster"]),
        ("foca", &["umbel-cluster"]),
        ("ractor", &["umbel-actors"]),
        ("rmqtt-codec", &["umbel-mqtt"]),
        ("axum", &["umbel-http"]),
        ("rumqttc", &["umbel-node", "umbel-loadtest", "umbel-chaos"]),
    ];
    let arrows = arrows();
    for (library, allowed) in rooms {
        for (package, uses) in &arrows {
            let inside = allowed.contains(&package.as_str()) || package == "umbel-fuzz";
            assert!(
                inside || !uses.iter().any(|used| used == library),
                "{package} uses {library}"
            );
        }
    }
    for absent in ["tokio", "tracing", "rand", "metrics"] {
        assert!(
            !arrows["umbel-core"].iter().any(|used| used == absent),
            "core uses {absent}"
        );
    }
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let is_test = path.components().any(|part| {
            let part = part.as_os_str();
            part == "tests" || part == "tests.rs" || part == "benches"
        });
        let code = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let lines = code.lines().count();
        assert!(
            is_test || lines <= LINES_MAX,
            "{} has {lines} lines",
            path.display()
        );
    }
}

#[test]
fn every_metric_name_follows_the_convention() {
    for path in sources().iter().filter(|path| path.ends_with("metrics.rs")) {
        let text = fs::read_to_string(path).unwrap();
        for name in text.split('"').filter(|part| part.starts_with("umbel_")) {
            let fits = name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            assert!(fits, "{}: {name}", path.display());
        }
    }
}

/// What stands between quotes after each `before` in these sources.
fn named(before: &str, of: impl Fn(&Path) -> bool) -> BTreeSet<String> {
    let texts = sources().into_iter().filter(|path| of(path));
    let texts: Vec<String> = texts.map(|p| fs::read_to_string(p).unwrap()).collect();
    let names = texts.iter().flat_map(|text| text.split(before).skip(1));
    names
        .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
        .collect()
}

/// F7: a point that nobody dies at proves nothing.
#[test]
fn nodes_are_made_to_die_at_every_crash_point_there_is() {
    let points = named(concat!("crash::", "point(\""), |_| true);
    let tried = named("    \"", |path| {
        path.ends_with("chaos/src/cluster/points.rs")
    });
    assert_eq!(points, tried);
    assert!(points.len() >= 40, "{points:?}");
}
