//! Opens a page in headless Chromium, where it is installed, and returns what it shows.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::programs::{ProgramDir, RunningProgram};

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// The browser's program. Without one, says that the test is skipped.
pub(crate) fn chromium() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .flat_map(|dir| NAMES.map(|name| dir.join(name)))
        .find(|program| program.is_file());
    if found.is_none() {
        // Past the test runner, which keeps back what tests that pass print.
        let _ = writeln!(io::stderr(), "SKIPPED: no Chromium is installed ({})", NAMES.join(", "));
    }
    found
}

/// The page's elements after its script has run, as the browser would save them.
pub(crate) fn dom(browser: &Path, place: &ProgramDir, url: &str, args: &[&str]) -> String {
    let profile = format!("--user-data-dir={}", place.path("chromium").display());
    let mut all = vec!["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"];
    all.extend(["--disable-dev-shm-usage", "--window-size=1200,900", &profile, "--dump-dom"]);
    all.extend(args);
    all.push(url);
    let mut command = place.command(browser, &all);
    let ran = RunningProgram::start(&mut command).wait();
    assert_eq!(ran.code(), 0, "{ran:#?}");
    ran.stdout
}

/// The text of the element with this id, without what is marked up in it.
pub(crate) fn text_of(dom: &str, id: &str) -> String {
    let start = dom.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id}: {dom}"));
    let name_start = dom[..start].rfind('<').unwrap() + 1;
    let name = dom[name_start..].split([' ', '>']).next().unwrap();
    let inside = &dom[start..];
    let inside = &inside[inside.find('>').unwrap() + 1..];
    let inside = &inside[..inside.find(&format!("</{name}>")).unwrap()];
    let mut text = String::new();
    let mut is_tag = false;
    for c in inside.chars() {
        match c {
            '<' => (is_tag, text) = (true, text + " "),
            '>' if is_tag => is_tag = false,
            c if !is_tag => text.push(c),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
