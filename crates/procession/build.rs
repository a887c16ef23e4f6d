//! Sets the build id of this crate: a number that changes with its sources, its features, its version and
//! the profile.
//!
//! A coordinator and a worker of different builds may encode tasks differently. Both have the id of their
//! build, and the handshake compares the two.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsStr;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let mut files = vec![PathBuf::from("Cargo.toml")];
    collect(Path::new("src"), &mut files);
    files.sort();

    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        fs::read(&file).expect("a source file is readable").hash(&mut hasher);
    }
    for variable in ["CARGO_PKG_VERSION", "TARGET", "PROFILE"] {
        env::var_os(variable).hash(&mut hasher);
    }
    for (name, _) in env::vars_os().filter(|(name, _)| is_feature(name)) {
        name.hash(&mut hasher);
    }
    println!("cargo::rustc-env=PROCESSION_BUILD={:016x}", hasher.finish());
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=Cargo.toml");
}

fn is_feature(variable: &OsStr) -> bool {
    variable.to_str().is_some_and(|name| name.starts_with("CARGO_FEATURE_"))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder is readable") {
        let path = entry.expect("a folder entry is readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
