//! What the documents of the repository say of it is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// All files of the repository but what was built and what programs wrote.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<_> = ["src", "crates", "tests", "benches", "docs", ".ci"]
        .map(|name| Path::new(ROOT).join(name))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true if path.ends_with("target") => {}
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files
}

/// The words of a text that are names of source files, or paths.
fn paths(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    let words = text.split(|c| !is_part(c)).map(|word| word.trim_matches(['.', '-']));
    let is_path = |word: &&str| {
        let starts = ["src/", "crates/", "tests/", "benches/", "examples/", "docs/"];
        starts.iter().any(|start| word.starts_with(start))
            || [".rs", ".py"].iter().any(|end| word.ends_with(end) && word.len() > end.len())
    };
    words.filter(is_path).collect()
}

#[test]
fn every_path_in_the_documents_exists() {
    let files = files();
    let exists = |path: &str| {
        let path = path.trim_end_matches('/');
        files.iter().any(|file| {
            file.ends_with(path) || file.ancestors().any(|folder| folder.ends_with(path))
        })
    };
    for document in [
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "README.md",
        "SECURITY.md",
        "docs/benchmarks.md",
        "docs/cookbook.md",
        "docs/coordinator.md",
        "docs/encodings.md",
        "docs/which-style.md",
    ] {
        let text = fs::read_to_string(Path::new(ROOT).join(document)).expect("a document");
        let missing: Vec<_> = paths(&text).into_iter().filter(|path| !exists(path)).collect();
        assert!(missing.is_empty(), "{document}: {missing:?}");
    }
    let architecture = fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).expect("it");
    assert!(paths(&architecture).len() > 80, "the names of files are found in the text");
}
