//! The paths and functions that the documents name exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// All files of the repository but what was built and what programs wrote.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<_> = ["src", "crates", "tests", "benches", "docs", "fuzz", ".ci"]
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
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "README.md",
        "SECURITY.md",
        "crates/procession/README.md",
        "crates/procession/src/process_pool/README.md",
        "docs/benchmarks.md",
        "docs/cookbook.md",
        "docs/coordinator.md",
        "docs/encodings.md",
        "docs/hosts.md",
        "docs/which-style.md",
        "fuzz/README.md",
    ] {
        let text = read(document);
        let missing: Vec<_> = paths(&text).into_iter().filter(|path| !exists(path)).collect();
        assert!(missing.is_empty(), "{document}: {missing:?}");
    }
    let architecture = read("ARCHITECTURE.md");
    assert!(paths(&architecture).len() > 80, "the names of files are found in the text");
}

/// The functions that a text names as `path.rs::function`.
fn functions(text: &str) -> BTreeSet<(&str, &str)> {
    let words = text.split('`').filter_map(|word| word.split_once("::"));
    words.filter(|(path, _)| path.ends_with(".rs")).collect()
}

#[test]
fn every_function_that_the_architecture_names_exists() {
    let files = files();
    let architecture = read("ARCHITECTURE.md");
    let functions = functions(&architecture);
    assert!(functions.len() >= 10, "two ways of five steps: {functions:?}");
    for (path, function) in functions {
        let file = files.iter().find(|file| file.ends_with(path));
        let source = file.and_then(|file| fs::read_to_string(file).ok());
        let definition = [format!("fn {function}("), format!("fn {function}<")];
        let is_there = source.is_some_and(|it| definition.iter().any(|d| it.contains(d)));
        assert!(is_there, "{path}::{function}");
    }
}

#[test]
fn the_architecture_names_every_source_file() {
    let architecture = read("ARCHITECTURE.md");
    let (_, list) = architecture.split_once("## The files").expect("a list of files");
    let (list, _) = list.split_once("\n## ").expect("a chapter behind it");
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
    // Each file is named by itself, also where several have one name.
    let mut words: BTreeMap<_, usize> = BTreeMap::new();
    for word in list.split(|c| !is_part(c)) {
        *words.entry(word.trim_end_matches('.')).or_default() += 1;
    }
    let files = files();
    let paths = files.iter().map(|file| file.strip_prefix(ROOT).expect("a path below the root"));
    let is_source = |path: &&Path| {
        let mut folders = path.iter().skip_while(|name| *name == "crates").take(2);
        folders.any(|name| name == "src") && path.extension().is_some_and(|end| end == "rs")
    };
    let sources: Vec<_> = paths.filter(is_source).collect();
    assert!(sources.len() > 300, "the sources are found: {}", sources.len());
    let mut missing = Vec::new();
    for path in sources {
        let mut parts = path.iter().filter_map(|part| part.to_str());
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let is_of_tests = name.ends_with("tests.rs") || parts.any(|part| part == "tests");
        if is_of_tests || ["mod.rs", "lib.rs"].contains(&name) {
            continue;
        }
        match words.get_mut(name) {
            Some(left @ 1..) => *left -= 1,
            _ => missing.push(path),
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The words of a document that look like names in the code: `Exit::WrittenOff` in a sentence, `RunHistory` in a list.
fn names(document: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let has_humps = |word: &str, humps: usize| {
        word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.contains(|c: char| c.is_ascii_lowercase())
            && word.matches(|c: char| c.is_ascii_uppercase()).count() >= humps
    };
    let mut names = BTreeSet::new();
    for (n, part) in document.split("```").enumerate() {
        if n % 2 == 1 {
            names.extend(part.split(|c| !is_part(c)).filter(|word| has_humps(word, 2)));
            continue;
        }
        for span in part.split('`').skip(1).step_by(2) {
            names.extend(span.split(|c| !is_part(c)).filter(|word| has_humps(word, 1)));
            let member = span.split_once("::").filter(|(of, _)| has_humps(of, 1));
            names.extend(member.and_then(|(_, it)| it.split(|c| !is_part(c)).next()));
        }
    }
    names
}

#[test]
fn every_name_in_the_architecture_is_in_the_code() {
    let mut words = BTreeSet::new();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_source = |file: &PathBuf| file.extension().is_some_and(|end| end == "rs");
    for file in files().into_iter().filter(is_source) {
        let source = fs::read_to_string(file).expect("a source file");
        let code = source.lines().filter_map(|line| line.split("//").next());
        let found = code.flat_map(|line| line.split(|c| !is_part(c)));
        words.extend(found.map(str::to_owned).collect::<Vec<_>>());
    }
    for document in ["ARCHITECTURE.md", "crates/procession/src/process_pool/README.md"] {
        let text = read(document);
        let names = names(&text);
        assert!(names.len() > 40, "{document}: the names are found: {names:?}");
        let unknown: Vec<_> = names.iter().filter(|name| !words.contains(**name)).collect();
        assert!(unknown.is_empty(), "{document}: {unknown:?}");
    }
}

/// The crates of others that a manifest depends on, in any of its tables.
fn dependencies(manifest: &str) -> BTreeSet<&str> {
    let mut is_dependency = false;
    let names = manifest.lines().filter_map(|line| {
        if line.starts_with('[') {
            is_dependency = line.ends_with("dependencies]");
            return None;
        }
        let name = line.split(['.', ' ', '=']).next()?;
        let is_own = name.starts_with("procession") || name.starts_with("example-");
        let is_name = is_dependency && !name.is_empty() && !name.starts_with('#') && !is_own;
        is_name.then_some(name)
    });
    names.collect()
}

#[test]
fn the_architecture_says_what_each_dependency_is_for() {
    let architecture = read("ARCHITECTURE.md");
    let (_, table) = architecture.split_once("## Dependencies").expect("a table");
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let rows = table.lines().filter(|line| line.starts_with('|'));
    let words: BTreeSet<_> = rows.flat_map(|row| row.split(|c| !is_part(c))).collect();
    let manifests = files().into_iter().filter(|file| {
        let is_measured_beside = file.components().any(|part| part.as_os_str() == "benches");
        file.ends_with("Cargo.toml") && !is_measured_beside
    });
    let texts = manifests.map(|file| fs::read_to_string(file).expect("a manifest"));
    let texts: Vec<_> = texts.chain([read("Cargo.toml")]).collect();
    let named: BTreeSet<_> = texts.iter().flat_map(|text| dependencies(text)).collect();
    assert!(named.len() > 50, "the dependencies are found: {named:?}");
    let missing: Vec<_> = named.iter().filter(|name| !words.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_source_file_has_at_most_450_lines() {
    let kinds = ["c", "css", "html", "js", "py", "rs", "sh"];
    let is_source = |file: &&PathBuf| {
        let extension = file.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| kinds.contains(&extension))
    };
    for file in files().iter().filter(is_source) {
        let lines = fs::read_to_string(file).expect("a source file").lines().count();
        assert!(lines <= 450, "{}: {lines} lines", file.display());
    }
}

/// The lines of a source that define public functions and types, each with its documentation. Lines of attributes
/// are between the two.
fn public_items(source: &str) -> Vec<(&str, Vec<&str>)> {
    let (mut items, mut documentation, mut is_attribute) = (Vec::new(), Vec::new(), false);
    for line in source.lines().take_while(|line| *line != "#[cfg(test)]").map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            documentation.push(text);
            continue;
        }
        is_attribute |= line.starts_with("#[");
        if is_attribute {
            is_attribute = !line.ends_with(']');
            continue;
        }
        let item = line.strip_prefix("pub ").map(|item| item.trim_start_matches("const "));
        let kinds = ["fn ", "async fn ", "struct ", "enum ", "trait "];
        let documented = std::mem::take(&mut documentation);
        if item.is_some_and(|item| kinds.iter().any(|kind| item.starts_with(kind))) {
            items.push((line, documented));
        }
    }
    items
}

/// The lint `unreachable_pub` sees to it that what is `pub` can be used by other crates.
#[test]
fn every_public_item_of_the_library_has_an_example_or_says_where_it_is() {
    // For the code of the attributes, for other crates of this repository, or for its tests.
    const INTERNAL: [&str; 5] = ["__private", "fuzzing", "scheduler", "simulation", "transport"];
    let is_of_library = |file: &&PathBuf| {
        let crates = ["crates/procession/src", "crates/procession-nats/src"];
        let rest =
            crates.iter().find_map(|path| file.strip_prefix(Path::new(ROOT).join(path)).ok());
        rest.is_some_and(|rest| {
            let mut names = rest.iter().filter_map(|name| name.to_str());
            rest.extension().is_some_and(|end| end == "rs")
                && names.all(|name| !INTERNAL.contains(&name.trim_end_matches(".rs")))
        })
    };
    let (mut number, mut missing) = (0, Vec::new());
    for file in files().iter().filter(is_of_library) {
        let source = fs::read_to_string(file).expect("a source file");
        let is_shown = |name: &str| {
            let calls = [format!(".{name}("), format!("::{name}(")];
            let mut lines = source.lines().filter(|line| line.trim_start().starts_with("///"));
            lines.any(|line| calls.iter().any(|call| line.contains(call)))
        };
        for (line, documentation) in public_items(&source) {
            number += 1;
            let has_one =
                documentation.iter().any(|it| it.contains("```") || it.contains("example"));
            let function = line.split_once("fn ").map(|(_, rest)| rest);
            let name = function.and_then(|it| it.split(['(', '<']).next());
            if !has_one && !name.is_some_and(is_shown) {
                missing.push(format!("{}: {line}", file.display()));
            }
        }
    }
    assert!(number > 300, "the public items are found: {number}");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn a_public_item_has_one_path() {
    let mut number = 0;
    for file in files().iter().filter(|file| file.extension().is_some_and(|end| end == "rs")) {
        let source = fs::read_to_string(file).expect("a source file");
        let modules =
            source.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        for module in modules {
            number += 1;
            let begins = [format!("pub use {module}::"), format!("pub use self::{module}::")];
            let is_second = |line: &&str| begins.iter().any(|begin| line.starts_with(begin));
            let second = source.lines().find(is_second);
            assert_eq!(second, None, "{}: `{module}` is public, too", file.display());
        }
    }
    assert!(number > 20, "the public modules are found: {number}");
}

/// The name of the type or trait that a line defines. An alias in a block is that of a trait's type.
fn defined_type(line: &str) -> Option<&str> {
    let kinds = ["struct ", "enum ", "trait ", "unsafe trait ", "union ", "type "];
    let is_in_block = line.starts_with(' ');
    let line = line.trim_start();
    let line = line.strip_prefix("pub").map_or(line, |public| match public.split_once(") ") {
        Some((_, definition)) if public.starts_with('(') => definition,
        _ => public.trim_start(),
    });
    let kind = kinds.iter().find(|kind| line.starts_with(**kind))?;
    if is_in_block && *kind == "type " {
        return None;
    }
    line[kind.len()..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()
}

/// The lines of a source before its unit tests.
fn lines_before_tests(source: &str) -> impl Iterator<Item = &str> {
    let lines: Vec<_> = source.lines().collect();
    let is_test = |pair: &[&str]| {
        pair[0].starts_with("#[cfg(") && pair[0].contains("test") && pair[1].ends_with('{')
    };
    let end = lines.windows(2).position(is_test).unwrap_or(lines.len());
    lines.into_iter().take(end)
}

/// The types that a source defines outside of its tests, in lines that begin so. Where a file has a type twice, one
/// stands in for the other on another system, or without a feature.
fn defined_types<'s>(source: &'s str, begin: &str) -> BTreeSet<&'s str> {
    let lines = lines_before_tests(source).filter(|line| line.trim_start().starts_with(begin));
    lines.filter_map(defined_type).collect()
}

/// The files among these that define a type of each name, in lines that begin so.
fn definitions(is_source: impl Fn(&Path) -> bool, begin: &str) -> BTreeMap<String, Vec<PathBuf>> {
    let mut defined_in: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for file in files() {
        let path = file.strip_prefix(ROOT).expect("a path below the root");
        if file.extension().is_some_and(|extension| extension == "rs") && is_source(path) {
            let source = fs::read_to_string(&file).expect("a source file");
            for name in defined_types(&source, begin) {
                defined_in.entry(name.to_owned()).or_default().push(path.to_owned());
            }
        }
    }
    defined_in
}

fn is_in(folder: &str, path: &Path) -> bool {
    path.iter().skip_while(|name| *name == "crates").take(2).any(|name| name == folder)
}

#[test]
fn no_type_name_means_two_things() {
    // Of the journal, which other programs write too, and of the library: the same things. `Readme` has
    // the documents whose examples are tested. The others are types of a feature, and what there is without it.
    const SAME: [&str; 5] =
        ["OutputStream", "Readme", "ResourceUsage", "RunnerLane", "WorkerTraces"];
    let mut defined_in = definitions(|path| is_in("src", path), "");
    assert!(defined_in.len() > 500, "the definitions are found: {}", defined_in.len());
    // What tests share among themselves is named apart, too.
    let is_support = |path: &Path| is_in("tests", path) && path.iter().any(|it| it == "support");
    let shared = definitions(is_support, "pub");
    assert!(shared.len() > 15, "the definitions are found: {}", shared.len());
    defined_in.retain(|name, files| {
        files.extend(shared.get(name).into_iter().flatten().cloned());
        files.len() > 1 && !SAME.contains(&name.as_str())
    });
    assert!(defined_in.is_empty(), "{defined_in:#?}");
}

#[test]
fn the_modules_of_the_library_use_each_other_as_the_architecture_says() {
    let architecture = read("ARCHITECTURE.md");
    let (_, table) = architecture.split_once("| module | is used by |").expect("a table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<&str>> =
        rows.map(|row| row.split('`').skip(1).step_by(2).collect()).collect();
    assert!(rows.len() > 3, "the table has rows: {rows:?}");
    let root = Path::new(ROOT).join("crates/procession/src");
    let (mut number, mut wrong) = (0, Vec::new());
    for file in files() {
        let Ok(path) = file.strip_prefix(&root) else { continue };
        let name = path.iter().next().and_then(|name| name.to_str()).expect("a name");
        let user = name.trim_end_matches(".rs");
        if user == "lib" || path.iter().any(|name| name.to_string_lossy().ends_with("tests.rs")) {
            continue;
        }
        let source = fs::read_to_string(&file).expect("a source file");
        let code = lines_before_tests(&source).filter_map(|line| line.split("//").next());
        let code: String = code.collect();
        for row in &rows {
            let (module, users) = row.split_first().expect("a module");
            let is_use = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            let names = [format!("crate::{module}"), format!("crate::{{{module}")];
            let uses = names.iter().flat_map(|name| code.split(name.as_str()).skip(1));
            let uses = uses.filter(|rest| is_use(rest)).count();
            number += uses;
            if uses > 0 && user != *module && !users.contains(&user) {
                wrong.push(format!("{} uses {module}", path.display()));
            }
        }
    }
    assert!(number > 100, "the uses are found: {number}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn read(document: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(document)).expect("a document")
}
