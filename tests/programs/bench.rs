//! `coordinator bench`: its figures are plausible, as a table and as JSON.

use std::collections::BTreeSet;

use crate::programs::ProgramDir;
use serde_json::Value;

/// The numbers of an object, or of what is in it, with the names that lead there.
fn numbers(value: &Value, name: &str, all: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => all.push((name.to_owned(), number.as_f64().unwrap())),
        Value::Object(fields) => {
            fields
                .iter()
                .for_each(|(field, value)| numbers(value, &format!("{name}.{field}"), all));
        }
        Value::Array(values) => values.iter().for_each(|value| numbers(value, name, all)),
        _ => {}
    }
}

#[test]
fn json_has_a_figure_for_each_measure_and_its_unit_in_its_name() {
    let _cores = crate::programs::all_cores();
    let place = ProgramDir::new();
    let ran = place.run(&["bench", "--quick", "--json", "-w", "2"]).expect(0);
    assert_eq!(ran.stderr, "");
    assert_eq!(place.path("").read_dir().unwrap().count(), 0, "nothing was written");
    let lines = ran.json();
    let [figures] = lines.as_slice() else { panic!("one line: {ran:#?}") };
    assert_eq!((&figures["workers"], &figures["quick"]), (&2.into(), &true.into()));

    let mut all = Vec::new();
    numbers(figures, "", &mut all);
    let names: BTreeSet<_> = all.iter().map(|(name, _)| name.as_str()).collect();
    for measure in ["round_trip_us", "submit_tasks_per_s", "map_tasks_per_s"] {
        for mode in crate::programs::MODES {
            let name = format!(".{measure}.{mode}");
            assert!(names.iter().any(|there| there.starts_with(&name)), "{name}: {names:?}");
        }
    }
    for name in [
        ".start_up_ms.median",
        ".respawn_ms.longest",
        ".round_trip_us.processes.p50",
        ".round_trip_us.processes.p99",
        ".payloads.size_bytes",
        ".payloads.mib_per_s",
        ".extra_us_per_task.low",
        ".extra_us_per_task.median",
        ".extra_us_per_task.high",
    ] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
    // On a busy machine a process may seem to cost nothing, or less.
    let may_be_less =
        |name: &str| [".extra_", ".under_", ".others"].iter().any(|start| name.starts_with(start));
    assert!(all.iter().all(|(name, n)| *n > 0.0 || may_be_less(name)), "{all:?}");
    let of = |path: &str| figures.pointer(path).and_then(Value::as_f64);
    let low_and_high = |name: &str| (of(&format!("/{name}/low")), of(&format!("/{name}/high")));
    assert!(low_and_high("extra_us_per_task").0 <= low_and_high("extra_us_per_task").1);
    // Either both are given or none. If none is given, there is no advice.
    let advice = figures["advice"].as_str().unwrap();
    for name in ["under_10_percent_from_ms", "under_1_percent_from_ms"] {
        assert!(figures.as_object().unwrap().contains_key(name), "{name}");
        match low_and_high(name) {
            (Some(low), Some(high)) => assert!(0.0 <= low && low <= high, "{figures}"),
            none => assert_eq!(none, (None, None), "{figures}"),
        }
        assert_eq!(figures[name].is_null(), advice.contains("cannot be told"), "{advice}");
    }
    assert_eq!(figures["payloads"].as_array().unwrap().len(), 3);

    // Short tasks travel together.
    let rate = |measure: &str| figures[measure]["processes"].as_f64().unwrap();
    assert!(rate("map_tasks_per_s") > rate("submit_tasks_per_s"), "{all:?}");
    let of = |measure: &str, field: &str| figures[measure]["processes"][field].as_f64().unwrap();
    assert!(of("round_trip_us", "p50") <= of("round_trip_us", "p99"));
    assert!(advice.starts_with("On this machine") && advice.ends_with('.'), "{advice}");
}

#[test]
fn the_table_fits_a_terminal_and_ends_with_the_advice() {
    let _cores = crate::programs::all_cores();
    let ran = ProgramDir::new().run(&["bench", "--quick", "-w", "1"]).expect(0);
    assert_eq!(ran.stderr, "");
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("1 worker on "), "{ran:#?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{ran:#?}");
    for row in ["submit, tasks/s", "map, tasks/s", "round trip, p99 µs", "fresh pool", "MiB/s"] {
        assert!(ran.stdout.contains(row), "{row}: {ran:#?}");
    }
    let (_, advice) = ran.stdout.rsplit_once("\n\n").expect("a paragraph of its own");
    assert!(advice.starts_with("On this machine") && advice.ends_with(".\n"), "{advice}");
}

#[test]
fn workers_that_make_no_sense_are_a_usage_error() {
    for (workers, why) in [("0", "must be >= 1"), ("-1", "must be a whole number >= 1")] {
        let ran = ProgramDir::new().run(&["bench", "-w", workers]).expect(2);
        assert!(ran.stderr.contains(&format!("--workers N {why}")), "{ran:#?}");
    }
    let ran = ProgramDir::new().run(&["br", "bench"]).expect(2);
    assert!(ran.stderr.contains("bench is a command, which must come first"), "{ran:#?}");
}

#[test]
#[cfg(target_os = "linux")]
fn an_interrupt_ends_it_and_its_workers() {
    use rustix::process::Signal;

    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let place = ProgramDir::new();
        let run = place.start(&["bench", "-w", "2"]);
        // It takes longer than anything that is waited for here.
        let workers = run.workers(2);
        run.signal(signal);
        let ran = run.wait().expect(code);
        assert_eq!(ran.stdout, "");
        assert_eq!(ran.stderr, "coordinator: interrupted: there are no figures\n");
        crate::programs::wait_until_gone(&workers);
    }
}
