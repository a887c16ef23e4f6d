#!/usr/bin/env python3
"""What a task on other hosts costs, and what the death of one of two costs: procession over NATS, Celery with
redis, dask.distributed and ray, in turn, for several rounds, as a table in Markdown.

    python3 crates/procession/benches/peers/hosts.py                three rounds
    python3 crates/procession/benches/peers/hosts.py --rounds 1     one, in two minutes
    python3 crates/procession/benches/peers/hosts.py --only celery  one system beside ours

All of them have two workers of one process on this machine, and keep what they have to keep: NATS and redis on
the disk, dask and ray in memory. It sets up what it needs in target/peers (the first time), installs nothing
elsewhere, and says what it had to leave out; Celery needs redis-server on the PATH.
"""

import argparse
import json
import subprocess
import sys

import peers
from peers import say

OURS = "procession"
# What is installed, what is imported, and how many tasks are enough.
SYSTEMS = {"celery": (["celery", "redis"], 1000), "dask": (["distributed"], 2000), "ray": (["ray"], 2000)}
FIGURES = {
    "submit + as_completed, tasks/s": "tasks that do nothing, a second",
    "one in flight, us": "one in flight, µs",
    "one of two killed: lost": "one of two killed: tasks without an answer after 60 s",
    "one of two killed: begun twice": "begun twice",
    "one of two killed: done after, s": "until the last answer, s",
}


def command_of(system, directory, python, tasks):
    if system == OURS:
        return [directory / "examples" / "hosts_figures", "5000", "--json"]
    return [python, peers.HERE / f"hosts_{system}.py", str(tasks)]


def measured(system, command):
    ran = peers.run(command, 400, cwd=peers.HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if ran is None:
        say(f"{system} has not ended within 400 s")
        return None
    try:
        # ray tells of the node that was killed, among the rest.
        return json.loads(next(line for line in ran.stdout.splitlines() if line.startswith("{")))
    except (StopIteration, ValueError):
        say(f"{system}: {(ran.stderr.splitlines() or ['it says nothing'])[-1]}")
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=peers.rounds, default=3)
    parser.add_argument("--only", choices=SYSTEMS, action="append")
    arguments = parser.parse_args()
    asked = {system: SYSTEMS[system] for system in arguments.only or SYSTEMS}
    python, there = peers.virtual_environment(*(name for names, _ in asked.values() for name in names))
    systems = [OURS, *(system for system, (names, _) in asked.items() if set(names) <= set(there))]
    directory = peers.ours("-p", "procession-nats", "--example", "hosts_figures")
    figures = {system: [] for system in systems}
    for at in range(arguments.rounds):
        for system in systems:
            say(f"round {at + 1}: {system}")
            tasks = asked[system][1] if system in asked else 0
            if found := measured(system, command_of(system, directory, python, tasks)):
                figures[system].append(found)
    print(f"{arguments.rounds} rounds on {peers.machine()}: the median, and from where to where.\n")
    rows = []
    for name, title in FIGURES.items():
        cells = [[found[name] for found in figures[system]] for system in systems]
        rows.append([title, *(shown(values) for values in cells)])
    print(peers.table(["", *systems], rows))


def shown(values):
    if not values:
        return "–"
    median, spread = peers.summary(values)
    return f"{median} ({spread})" if spread and min(values) != max(values) else median


if __name__ == "__main__":
    sys.exit(main())
