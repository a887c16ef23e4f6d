"""Measures what a type of task costs to compile, in a package of its own that uses the library.

    python3 crates/procession/benches/compile/tasks.py [--tasks 40] [--rounds 3]

Each task has an input and an output type of its own, with three and two fields. The cost is that of a program with
many tasks, less that of a program with the same types and one task, divided by their number: in seconds of CPU time of
the compiler, and in bytes of the program.
"""

import argparse
import pathlib
import resource
import subprocess
import tempfile

LIBRARY = pathlib.Path(__file__).resolve().parents[2]

MANIFEST = f"""
[package]
name = "tasks"
version = "0.1.0"
edition = "2024"

[dependencies]
procession = {{ path = "{LIBRARY}" }}
serde = {{ version = "1", features = ["derive"] }}

[profile.release]
strip = "debuginfo"

[workspace]
"""


def program(types, tasks, call):
    """The source of a program with so many types, and tasks for the first of them."""
    text = "#![allow(dead_code, unused_imports)]\nuse procession::{Executor, ProcessPool};\n"
    for n in range(types):
        number = ["u8", "u16", "u32", "u64"][n % 4]
        text += f"""
#[derive(serde::Serialize, serde::Deserialize)]
pub struct In{n} {{ a: {number}, b: String, c: Vec<f64> }}
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Out{n} {{ a: u64, b: Option<String> }}
"""
    for n in range(tasks):
        text += f"""
#[procession::task]
fn task{n}(input: In{n}) -> Out{n} {{ Out{n} {{ a: input.c.len() as u64 + {n}, b: Some(input.b) }} }}
"""
    text += "#[procession::main]\nfn main() {\n    let pool = ProcessPool::new().unwrap();\n"
    for n in range(tasks):
        task = f"task{n}(In{n} {{ a: 1, b: String::new(), c: vec![1.0] }})"
        if call == "submit":
            text += f"    println!(\"{{}}\", pool.submit({task}).result().unwrap().a);\n"
        else:
            text += f"    for output in pool.map((0..3).map(|_| {task})) {{ println!(\"{{}}\", output.unwrap().a); }}\n"
    return text + "}\n"


def cost(root, profile, source, rounds):
    """The least CPU time of so many builds, in seconds, and the size of the program in bytes."""
    (root / "src/main.rs").write_text(source)
    command = ["cargo", "build", "--quiet", "--manifest-path", root / "Cargo.toml", "--target-dir", root / "target"]
    command += ["--release"] if profile == "release" else []
    environment = ["env", "CARGO_INCREMENTAL=0"]
    times = []
    for _ in range(rounds):
        (root / "src/main.rs").touch()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(environment + command, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times), (root / "target" / profile / "tasks").stat().st_size


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--tasks", type=int, default=40)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    print("a type of task, by        CPU time     bytes")
    with tempfile.TemporaryDirectory() as path:
        root = pathlib.Path(path)
        (root / "src").mkdir()
        (root / "Cargo.toml").write_text(MANIFEST)
        for profile in ["debug", "release"]:
            cost(root, profile, program(1, 1, "submit"), 1)  # builds the dependencies
            for call in ["submit", "map"]:
                one = cost(root, profile, program(options.tasks, 1, call), options.rounds)
                many = cost(root, profile, program(options.tasks, options.tasks, call), options.rounds)
                seconds, size = [(b - a) / (options.tasks - 1) for a, b in zip(one, many)]
                print(f"{call:<7} in a {profile:<8} build {seconds:6.2f} s  {size:9.0f}", flush=True)


if __name__ == "__main__":
    main()
