//! Rules about the source itself.

use std::{fs, path::Path};

fn sources(dir: &Path, found: &mut Vec<(String, String)>) {
    for file in fs::read_dir(dir).expect("readable") {
        let path = file.expect("readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            found.push((path.display().to_string(), text));
        }
    }
}

/// Lines of this crate's source that hold `what`, tests left out.
fn lines_with(what: &str) -> Vec<String> {
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    let files = files
        .into_iter()
        .filter(|(path, _)| !path.contains("tests"));
    let hits = files.flat_map(|(path, text)| {
        let lines = text
            .lines()
            .filter(|line| line.contains(what) && !line.trim().starts_with("//"));
        lines
            .map(|line| format!("{path}: {}", line.trim()))
            .collect::<Vec<_>>()
    });
    hits.collect()
}

#[test]
fn sled_is_flushed_in_one_place_which_also_syncs() {
    let flushes = lines_with("db.flush(");
    assert_eq!(flushes.len(), 1, "{flushes:?}");
    assert!(flushes[0].contains("store/rows.rs"), "{flushes:?}");
    assert_eq!(lines_with("flush_async"), Vec::<String>::new());
}

#[test]
fn sled_and_bincode_are_named_in_one_file_each() {
    for (name, home) in [("sled::", "store/rows.rs"), ("bincode::", "codec.rs")] {
        let strangers: Vec<_> = lines_with(name)
            .into_iter()
            .filter(|line| !line.contains(home))
            .collect();
        assert_eq!(strangers, Vec::<String>::new(), "{name}");
    }
    assert_eq!(
        lines_with("apply_batch"),
        Vec::<String>::new(),
        "it leaks memory"
    );
}
