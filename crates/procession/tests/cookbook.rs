//! The recipes of `docs/cookbook.md`: each names an example, which is run here.

#![forbid(unsafe_code)]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An example. `cargo test` builds all of them, and a run of this test program alone none.
fn example_program(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a path");
    let target = this.parent().and_then(Path::parent).expect("the folder of the profile");
    let program = target.join("examples").join(name);
    if !program.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        let cargo = cargo.args(["build", "--quiet", "--package", "procession", "--example", name]);
        assert!(cargo.status().expect("cargo").success());
    }
    program
}

/// What an example prints.
fn example(name: &str) -> String {
    let output = Command::new(example_program(name)).output().expect("an example");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file")
}

/// The first worker has another process id each time.
#[cfg(feature = "tracing")]
fn traced_shows_the_span_of_the_submitter() {
    let traced = example("traced");
    let lines: Vec<_> =
        traced.lines().filter(|line| !line.contains("procession: worker")).collect();
    let [six, warning, seven] = lines[..] else { panic!("{traced}") };
    assert_eq!(six, " INFO request{request=6}: traced: answered half=3");
    let (before, after) = warning.split_once(" pid=").expect("a process id");
    assert_eq!(before, r#" WARN request{request=7}:task{task=2 name="traced::halve" worker=0"#);
    let after = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
    assert_eq!(after, "}:halve{number=7}: traced: not even rest=1");
    assert_eq!(seven, " INFO request{request=7}: traced: answered half=3");
}

#[test]
fn the_examples_of_the_cookbook_do_what_it_says() {
    assert_eq!(example("rayon_before"), "43376 divisors\n");
    assert_eq!(example("rayon_after"), "43376 divisors\n");
    assert_eq!(example("in_tokio"), "322 and 546\n");
    assert_eq!(example("uses_library"), "[3, 1]\n");
    assert_eq!(example("typed_errors"), "120\nthe limit is 20\n");
    #[cfg(feature = "tracing")]
    traced_shows_the_span_of_the_submitter();
}

/// What the short examples print, in the order of the table in the cookbook.
const PRINTED: &[(&str, &str)] = &[
    (
        "as_completed",
        "0: panicked: nothing to halve\n10: 5\n13: signal 6 (SIGABRT)\n7: failed: 7 is odd\n",
    ),
    ("back_pressure", "all are accounted for: true\nimage 10\n"),
    ("cancelling", "strategy 0 wins\n2 cancelled\n"),
    ("events", "[20, 0]\n"),
    ("from_command", "2 converted, 2 failed\n"),
    ("from_procspawn", "2 words\npanicked: nothing to count\n3 words\n"),
    ("hanging_tasks", "(a): 3\n(((: not done in 500ms\n(b c): 5\n"),
    ("leaky_library", "50 pages by 5 processes, one after the other\n"),
    (
        "many_records",
        "record 70: Empty\nrecord 700: no answer\nrecord 7000: TooLong { length: 25 }\n\
         3 bad, the others have 8999973 bytes\n",
    ),
    ("preloaded", "40 sums of 16 MiB\n"),
    ("priorities", "a click, then a report, then a backup\n"),
    ("retries", "page 1 at attempt 1\npage 2 at attempt 3\npage 3 at attempt 1\n2 retries\n"),
    ("samples", "1000000 samples, the last is 1\n"),
    (
        "service",
        "'A'\nthe client of '?' is gone\nat the end: Err(Cancelled)\n1 done, 2 cancelled\n",
    ),
    ("shared_table", "part 7 costs 21\npart 9999 costs 29997\nthere is no part 10000\n"),
    ("spare_workers", "12: true\n13: its worker died\n14: false\n1 spare took over\n"),
    ("streamed_results", "2 3 5 7 11 are 5\n2 3 5 7 11 13 17 19 23 are 9\n"),
];

#[test]
fn the_short_examples_print_what_they_should_and_are_in_the_table_of_the_cookbook() {
    let cookbook = read("../../docs/cookbook.md");
    for (name, printed) in PRINTED {
        assert_eq!(example(name), *printed, "{name}");
        assert!(cookbook.contains(&format!("| `{name}.rs` |")), "{name}");
        let lines = read(&format!("examples/{name}.rs")).lines().count();
        assert!(lines < 60, "{name} has {lines} lines");
    }
}

#[test]
fn a_sandboxed_task_reads_no_file_where_there_is_a_sandbox() {
    let output = example("sandboxed");
    let lines: Vec<_> = output.lines().collect();
    let [honest, greedy, layers] = lines[..] else { panic!("{output}") };
    assert_eq!(honest, "a + bc: 3");
    assert!(greedy != "secrets: 7" || layers == "all layers: false", "{output}");
}

#[test]
fn the_example_of_a_kept_crash_dies_of_the_same_signal_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = example_program("kept_crash");
    let output = Command::new(&program).arg(dir.path()).output().expect("an example");
    assert!(output.status.success(), "{output:?}");
    let mut files = std::fs::read_dir(dir.path()).expect("a directory");
    let file = files.next().expect("a kept task").expect("an entry").path();
    let replay = Command::new(program).env("PROCESSION_REPLAY", file).output();
    assert_eq!(replay.expect("an example").status.signal(), Some(libc::SIGSEGV));
}

#[test]
fn the_example_of_a_dashboard_saves_its_page() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("target")).expect("a directory");
    let mut program = Command::new(example_program("dashboard"));
    let output = program.args(["200", "2"]).current_dir(&dir).output().expect("an example");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("200 of 200 thumbnails"), "{text}");
    assert!(dir.path().join("target/pool.html").exists());
}

#[test]
fn a_task_that_is_asked_to_stop_returns_what_it_has() {
    let output = example("partial_results");
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines.len(), 2, "{output}");
    for (line, from) in lines.iter().zip(["1000000", "1000000000"]) {
        let end = format!(" primes from {from} in 200 ms");
        let found = line.strip_suffix(&end).and_then(|number| number.parse::<u64>().ok());
        assert!(found.is_some(), "{line}");
    }
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "calls are recorded on Linux only")]
fn the_error_of_a_crash_in_c_names_the_functions_and_other_images_are_decoded() {
    let functions = ", in decode_row <- decode_image";
    let output = example("c_library");
    let lines: Vec<_> = output.lines().collect();
    let [a, b, c, ..] = lines[..] else { panic!("{output}") };
    assert_eq!((a, c), ("a: 1", "c: 1"));
    assert!(b.starts_with("b: worker ") && b.contains("SIGSEGV") && b.contains(functions), "{b}");
    assert!(lines[3..].iter().any(|line| line.ends_with(": decode_image")), "{output}");
    assert!(read("../../docs/cookbook.md").contains(functions));
}

#[test]
fn every_recipe_of_the_cookbook_names_an_example_that_exists() {
    let cookbook = read("../../docs/cookbook.md");
    let is_example = |word: &&str| word.ends_with(".rs") && !word.contains("/tests/");
    let names: Vec<_> = cookbook.split('`').filter(is_example).collect();
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        let name = Path::new(name).file_name().expect("a name");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        assert!(path.exists(), "{}", path.display());
    }
}

#[test]
fn the_port_from_rayon_in_the_cookbook_changes_four_lines() {
    let (before, after) = (read("examples/rayon_before.rs"), read("examples/rayon_after.rs"));
    let is_code = |line: &&str| !line.starts_with("//!");
    let only_in = |one: &str, other: &str| -> Vec<String> {
        let lines = one.lines().filter(is_code);
        lines.filter(|line| other.lines().all(|it| it != *line)).map(str::to_owned).collect()
    };
    let (removed, added) = (only_in(&before, &after), only_in(&after, &before));
    assert!(removed.len() <= 4 && added.len() <= 4, "{removed:#?} {added:#?}");
    let cookbook = read("../../docs/cookbook.md");
    for (sign, lines) in [("-", removed), ("+", added)] {
        for line in lines {
            assert!(cookbook.lines().any(|it| it == format!("{sign}{line}")), "{sign}{line}");
        }
    }
}
