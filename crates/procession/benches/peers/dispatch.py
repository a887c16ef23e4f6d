#!/usr/bin/env python3
"""What tasks cost in this crate's process pool and in others: each measure on each pool in turn,
for several rounds, then the goals and the figures as tables in Markdown.

    python3 benches/peers/dispatch.py              five rounds, in a quarter of an hour
    python3 benches/peers/dispatch.py --quick      one round, with fewer tasks, in a minute
    python3 benches/peers/dispatch.py --only map   one measure; `--only` can be given again

It sets up what it needs in target/peers (the first time), installs nothing elsewhere, and says what
it had to leave out.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

import peers
from peers import number, say

OURS = "procession"
SOCKET = "socket pair"
CPYTHON = "CPython"
ANEW = f"{OURS}, copied by the worker"
POOL = "multiprocessing.Pool"


@dataclass
class Measure:
    name: str
    title: str
    unit: str
    # For each pool: what its program is asked, and what is told of that beside the figure.
    asked: dict
    # Where the two sides of a round trip are: on so many CPUs, or wherever the system puts them.
    cpus: int = 0
    note: str = ""
    # By pool: a figure for each round.
    figures: dict = field(default_factory=dict)
    peaks: dict = field(default_factory=dict)


@dataclass
class Goal:
    text: str
    # What is to be compared with what, and from where to where that may be.
    ours: list
    theirs: list
    least: float = float("-inf")
    most: float = float("inf")
    unit: str = "x"


def measures(quick):
    batch = 2_000 if quick else 10_000
    seconds = 0.3 if quick else 1
    much, some, few = (100_000, 20_000, 5_000) if quick else (1_000_000, 200_000, 100_000)
    short = f"seconds={seconds}"
    plain = f"batch={batch} {short}"
    payload = f"mib={8 if quick else 64} times=5 seconds=10"
    start = f"times=20 seconds={2 * seconds}"
    all_pools = [OURS, POOL, "procspawn", "Pebble", CPYTHON, "loky"]
    trip = dict.fromkeys([SOCKET, "ipc-channel", *all_pools], short)
    return [
        Measure(
            "dispatch",
            "submit + as_completed",
            "no-op tasks/s",
            {
                **dict.fromkeys(all_pools, plain),
                # It keeps an open file for each task that is pending.
                "procspawn": f"batch=400 {short}",
                "ipc-channel": f"window=16 {plain}",
            },
            note=f"batches of {batch:,}, of procspawn 400; multiprocessing.Pool by "
            "imap_unordered; ipc-channel with 16 messages on their way to each process",
        ),
        Measure(
            "map",
            "map, from a lazy iterator",
            "no-op tasks/s",
            {
                OURS: f"tasks={much}",
                f"{POOL}, chunksize=1000": f"tasks={much} chunk=1000",
                f"{CPYTHON}, chunksize=1000": f"tasks={much} chunk=1000",
                POOL: f"tasks={some}",
                CPYTHON: f"tasks={few}",
                "Pebble": f"tasks={few}",
                "loky": f"tasks={few}",
            },
            note=f"{much:,} tasks; without chunks {POOL} {some:,}, the others {few:,}",
        ),
        Measure("round_trip_1", "one in flight, on one CPU", "µs", trip, cpus=1),
        Measure("round_trip_2", "one in flight, between two CPUs", "µs", trip, cpus=2),
        Measure("round_trip", "one in flight, wherever the system puts it", "µs", trip),
        Measure(
            "start_up",
            "fresh pool of 2, first result",
            "ms",
            dict.fromkeys(["ipc-channel", *all_pools], start),
            note="CPython and multiprocessing.Pool by fork",
        ),
        Measure(
            "payload",
            f"{8 if quick else 64} MiB there and back",
            "ms",
            dict.fromkeys(["ipc-channel", *all_pools], payload) | {ANEW: f"{payload} anew=1"},
            note="bytes in Python, a String in procspawn and ipc-channel, a Blob in procession, which "
            "the worker passes on, or copies",
        ),
        Measure(
            "overhead",
            "tasks of 1 ms, processes over threads",
            "% longer",
            {OURS: f"seconds={2 if quick else 6}"},
        ),
        Measure(
            "workers_64",
            "submit + as_completed on 64 workers",
            "no-op tasks/s",
            dict.fromkeys([OURS, POOL, CPYTHON], f"workers=64 {plain}"),
        ),
        Measure(
            "pending",
            f"submit + as_completed, {much // 10:,} at once",
            "no-op tasks/s",
            dict.fromkeys([OURS, POOL], f"batch={much // 10} {short}"),
        ),
    ]


GOALS = [
    Goal("dispatch: 50 x CPython", ["dispatch", OURS], ["dispatch", CPYTHON], least=50),
    Goal("dispatch: above multiprocessing.Pool", ["dispatch", OURS], ["dispatch", POOL], least=1),
    Goal(
        "map: at least multiprocessing.Pool with chunksize=1000",
        ["map", OURS],
        ["map", f"{POOL}, chunksize=1000"],
        least=1,
    ),
    Goal(
        "round trip on one CPU: at most 1.25 x a socket pair",
        ["round_trip_1", OURS],
        ["round_trip_1", SOCKET],
        most=1.25,
    ),
    Goal(
        "round trip between two: at most 1.25 x a socket pair",
        ["round_trip_2", OURS],
        ["round_trip_2", SOCKET],
        most=1.25,
    ),
    Goal(
        "round trip wherever: at most 1.25 x a socket pair",
        ["round_trip", OURS],
        ["round_trip", SOCKET],
        most=1.25,
    ),
    Goal("fresh pool: under CPython's", ["start_up", OURS], ["start_up", CPYTHON], most=1),
    Goal("payload: 4 x CPython's speed", ["payload", OURS], ["payload", CPYTHON], most=0.25),
    Goal("payload, copied by the worker: the same", ["payload", ANEW], ["payload", CPYTHON], most=0.25),
    Goal("map: under 50 MiB in the coordinator", ["map", OURS, "peak"], [], most=50, unit=" MiB"),
    Goal("processes over threads: under 3 %", ["overhead", OURS], [], most=3, unit=" %"),
    Goal("64 workers: as fast as 2", ["workers_64", OURS], ["dispatch", OURS], least=1),
    Goal("many pending: as fast as few", ["pending", OURS], ["dispatch", OURS], least=1),
]


def commands():
    """How to ask each pool."""
    python, there = peers.virtual_environment("loky", "pebble")
    figures = peers.ours("--example", "peer_figures") / "examples" / "peer_figures"
    found = {OURS: [figures], SOCKET: [figures]}
    if programs := peers.rust_peers():
        found["procspawn"] = [programs / "procspawn_figures"]
        found["ipc-channel"] = [programs / "ipc_channel_figures"]
    pools = peers.HERE / "python_pools.py"
    found |= {CPYTHON: [python, pools, "cpython"], POOL: [python, pools, "multiprocessing"]}
    for name in ("loky", "Pebble"):
        if name.lower() in there:
            found[name] = [python, pools, name.lower()]
    return found


def figure(command, measure, pool):
    """Runs a pool's program once."""
    what = "dispatch" if measure.name in ("workers_64", "pending") else measure.name
    what = "round_trip" if what.startswith("round_trip") else what
    what = f"raw_{what}" if pool == SOCKET else what
    environment, keep = dict(os.environ), None
    if measure.cpus:
        own, *others = peers.cpus()[: measure.cpus]
        environment["PEER_WORKER_CPU"] = str(others[0] if others else own)
        keep = lambda: os.sched_setaffinity(0, {own})
    ended = peers.run(
        [*command, what, *measure.asked[pool].split()],
        180,
        env=environment,
        preexec_fn=keep,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if ended is None or ended.returncode != 0:
        why = "did not end in time" if ended is None else ended.stderr.strip().splitlines()[-1:]
        say(f"  {pool}: no figure: {why}")
        return None
    return json.loads(ended.stdout.splitlines()[-1])


def measure_all(todo, found, rounds):
    for turn in range(rounds):
        for measure in todo:
            say(f"round {turn + 1} of {rounds}: {measure.title}")
            for name in measure.asked:
                command = found.get(name.split(",")[0])
                told = command and figure(command, measure, name)
                if not told:
                    continue
                say(f"  {name}: {number(told['value'])} {measure.unit}")
                # In the place of its round, so that rounds can be compared.
                for kept, key in ((measure.figures, "value"), (measure.peaks, "peak_mib")):
                    if told.get(key) is not None:
                        kept.setdefault(name, [None] * rounds)[turn] = told[key]


def here(values):
    return [value for value in values or [] if value is not None]


def goals(todo):
    by_name = {measure.name: measure for measure in todo}

    def figures(where):
        name, pool, *peak = where
        measure = by_name.get(name)
        return (measure.peaks if peak else measure.figures).get(pool) if measure else None

    for goal in GOALS:
        ours, theirs = figures(goal.ours), goal.theirs and figures(goal.theirs)
        if ours is None or theirs is None:
            continue
        if goal.theirs:
            pairs = [(one, other) for one, other in zip(ours, theirs) if one and other]
            values = [one / other for one, other in pairs]
        else:
            values = here(ours)
        if not values:
            continue
        value = statistics.median(values)
        reached = "yes" if goal.least <= value <= goal.most else "no"
        wanted = f"≤ {goal.most:g}" if goal.most < float("inf") else f"≥ {goal.least:g}"
        spread = peers.summary(values)[1]
        yield [goal.text, f"{wanted}{goal.unit}", f"{number(value)}{goal.unit}", spread, reached]


def rows(todo):
    for measure in todo:
        ours = measure.figures.get(OURS)
        title = f"{measure.title}, {measure.unit}"
        best_first = measure.unit.endswith("/s")
        ranked = [(name, here(values)) for name, values in measure.figures.items()]
        ranked.sort(key=lambda row: statistics.median(row[1]), reverse=best_first)
        for name, values in ranked:
            median, spread = peers.summary(values)
            pairs = [(x, y) for x, y in zip(measure.figures[name], ours or []) if x and y]
            times = peers.ratio(*zip(*pairs)) if pairs else None
            peak = here(measure.peaks.get(name)) if measure.name == "map" else []
            memory = f"{number(statistics.median(peak))} MiB" if peak else ""
            shown = f"**{name}**" if name == OURS else name
            yield [title, shown, median, spread, number(times), memory]
            title = ""


def versions(found):
    def of(package):
        try:
            python = str(found[CPYTHON][0])
            code = f"from importlib import metadata; print(metadata.version({package!r}))"
            return subprocess.check_output([python, "-c", code], text=True).strip()
        except (OSError, subprocess.SubprocessError):
            return "?"

    told = [f"CPython {platform.python_version()}"]
    told += [f"{name} {of(name.lower())}" for name in ("loky", "Pebble") if name in found]
    lock = peers.HERE / "rust" / "Cargo.lock"
    if "procspawn" in found and lock.exists():
        lines = lock.read_text().splitlines()
        for name in ("procspawn", "ipc-channel"):
            kept = [after for line, after in zip(lines, lines[1:]) if line == f'name = "{name}"']
            told.append(f"{name} " + " and ".join(line.split('"')[1] for line in kept))
    return ", ".join(told)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round, with fewer tasks")
    parser.add_argument("--rounds", type=peers.rounds, metavar="N", help="how often [default: 5]")
    names = [measure.name for measure in measures(False)]
    parser.add_argument("--only", action="append", choices=names, help="this measure")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 5)
    todo = [m for m in measures(options.quick) if not options.only or m.name in options.only]
    for measure in [m for m in todo if m.cpus > len(peers.cpus())]:
        say(f"{measure.title}: left out, as there are not so many CPUs to choose from")
        todo.remove(measure)

    found = commands()
    measure_all(todo, found, rounds)
    of = f"medians of {rounds} rounds" if rounds > 1 else "one round, which says little"
    print(f"On {peers.machine()}; 2 workers; {of}.")
    print(f"{versions(found)}.\n")
    if reached := list(goals(todo)):
        print(peers.table(["goal", "", "measured", "spread", "reached"], reached), end="\n\n")
    head = ["measure", "pool", "median", "spread", "x ours", "coordinator's peak"]
    print(peers.table(head, rows(todo)), end="\n\n")
    for measure in todo:
        if measure.note:
            print(f"- {measure.title}: {measure.note}.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
