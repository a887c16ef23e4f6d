"""What the scripts have in common: the directory of the peers, their installation, and a run of one.

Everything is installed in target/peers: a virtual environment, and the Rust programs beside it. What
cannot be installed is named and left out.
"""

import os
import signal
import statistics
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]
HOME = ROOT / "target" / "peers"


def say(text, end="\n"):
    """Prints the progress on stderr: standard output has the results."""
    print(text, end=end, file=sys.stderr, flush=True)


def virtual_environment(*packages):
    """The Python of the virtual environment, and which of the packages are there."""
    python = HOME / "bin" / "python"
    if not python.exists():
        say(f"setting up a virtual environment in {HOME.relative_to(ROOT)}")
        try:
            venv.create(HOME, with_pip=True)
        except (OSError, subprocess.SubprocessError) as error:
            say(f"there is no virtual environment: {error}")
            return Path(sys.executable), []
    there = []
    for package in packages:
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if has_module(python, package) or subprocess.run([*install, package]).returncode == 0:
            there.append(package)
        else:
            say(f"{package} cannot be installed, and is left out")
    return python, there


def has_module(python, name):
    importing = subprocess.run([python, "-c", f"import {name}"], stderr=subprocess.DEVNULL)
    return importing.returncode == 0


def rust_peers():
    """The directory of the other crates' programs, or nothing."""
    return build(HERE / "rust", HOME / "rust", ["--bins"], "procspawn and ipc-channel")


def ours(*what):
    """The directory of this repository's own programs, built as they are used."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return build(ROOT, target, what, "this repository") or sys.exit(1)


def build(crate, target, what, name):
    say(f"building {name}")
    command = ["cargo", "build", "--release", "--quiet", "--target-dir", target, *what]
    try:
        if subprocess.run(command, cwd=crate).returncode == 0:
            return target / "release"
    except OSError as error:
        say(f"cargo: {error}")
    say(f"{name} could not be built, and is left out")
    return None


def run(command, seconds, **options):
    """Runs a program and gives what it says and how it ended; nothing if it does not end in time.
    What it leaves behind is killed."""
    process = subprocess.Popen(command, start_new_session=True, text=True, **options)
    try:
        out, errors = process.communicate(timeout=seconds)
        return subprocess.CompletedProcess(command, process.returncode, out, errors)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end(process)


def end(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.communicate()


def cpus():
    """The numbers of the CPUs that can be used; none where that cannot be known or said."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []


def rounds(typed):
    """An argument that is a number of rounds."""
    if (number := int(typed)) < 1:
        raise ValueError
    return number


def machine():
    """On what it was measured."""
    model = "an unknown processor"
    try:
        told = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        model = next(value.strip() for name, _, value in told if name.strip() == "model name")
    except (OSError, StopIteration):
        pass
    system = os.uname()
    return f"{len(cpus()) or os.cpu_count()} CPUs of {model}, {system.sysname} {system.release}"


def number(value):
    """To three digits that count."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def summary(values):
    """The median, and from where to where the values go."""
    spread = f"{number(min(values))} – {number(max(values))}" if len(values) > 1 else ""
    return number(statistics.median(values)), spread


def ratio(values, to):
    """The median of the ratios of each round: what disturbs a round disturbs both."""
    pairs = [(value, other) for value, other in zip(values, to) if other]
    return statistics.median(value / other for value, other in pairs) if pairs else None


def table(head, rows):
    """A table in Markdown, in columns that can be read as they are."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
