#!/usr/bin/env python3
"""All 194 flags from one server: `coordinator` in processes and on threads beside curl, wget2,
aria2 and a script, each in turn, for several rounds; time and CPU as tables in Markdown.

    python3 benches/peers/downloads.py                      from nginx on loopback, if there is one
    python3 benches/peers/downloads.py --server embedded    from `coordinator serve`
    python3 benches/peers/downloads.py --server URL         from URL/br/br.gif and so on

nginx runs with a configuration of its own, in a directory that is removed again. The virtual
environment in target/peers is for the script; nothing is installed elsewhere. A program that is
missing is named and left out.
"""

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import peers
from peers import number, say

AT_A_TIME = 30
FLAGS = 194
OURS = "coordinator --mode processes"
CURL = "curl -Z"
# At most: times curl's, from the issue of the goals.
GOALS = [("wall time", 0, 1.0), ("CPU", 1, 3.0)]


@contextmanager
def server(kind, coordinator, place):
    """Where the flags are: the address of the site, and how it is called."""
    if kind not in ("nginx", "embedded", None):
        yield kind, kind
        return
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None and kind == "nginx":
        sys.exit("there is no nginx to be found")
    if nginx is None:
        say("there is no nginx to be found: the embedded server takes its place")
    with with_nginx(nginx, place) if nginx and kind != "embedded" else embedded(coordinator) as it:
        yield it


@contextmanager
def embedded(coordinator):
    free = ["--local-port", "0", "--delay-port", "0", "--error-port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([coordinator, "serve", *free], text=True, **pipes)
    try:
        url = process.stdout.readline().split(": ", 1)[1].strip()
        yield url, "the embedded server"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def with_nginx(nginx, place):
    site = place / "nginx"
    for flag in flags_in(place / "flags"):
        folder = site / "flags" / flag.stem
        folder.mkdir(parents=True)
        shutil.copy(flag, folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    temporary = "\n".join(f"  {kind}_temp_path {site}/{kind};" for kind in kinds)
    # Its workers are somebody else, if root starts it, and must be able to read the flags.
    user = "user root;" if os.geteuid() == 0 else ""
    (site / "nginx.conf").write_text(f"""
{user} daemon off; worker_processes auto; pid {site}/pid; error_log {site}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; types {{ image/gif gif; }}
{temporary}
  server {{ listen 127.0.0.1:{port} backlog=1024; root {site}; }}
}}
""")
    command = [nginx, "-e", site / "error.log", "-p", site, "-c", site / "nginx.conf"]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}/flags"
    try:
        wait_for(f"{url}/br/br.gif", process)
        yield url, "nginx on loopback"
    finally:
        process.terminate()
        process.wait()


def wait_for(url, process):
    deadline = time.monotonic() + 10
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the server does not answer: {error}")
            time.sleep(0.02)


def downloaders(coordinator, url, codes, place, script):
    """For each: how to have it download all flags to a directory."""
    def ours(mode, dest):
        much = ["--mode", mode, "-m", str(AT_A_TIME), "-s", url, "-d", dest]
        return [coordinator, "--all", *much, "--no-logs", "--progress", "none"]

    def curl(dest):
        pairs = (f'url = "{url}/{cc}/{cc}.gif"\noutput = "{dest}/{cc}.gif"\n' for cc in codes)
        config = written("".join(pairs))
        return ["curl", "-s", "-f", "-Z", "--parallel-max", str(AT_A_TIME), "-K", config]

    def wget2(dest):
        # Each name is there once, so all may lie in one directory.
        flat = ["--no-directories", "-P", dest, "-i", written(links)]
        return ["wget2", "-q", f"--max-threads={AT_A_TIME}", *flat]

    def aria2(dest):
        return ["aria2c", "-q", "-j", str(AT_A_TIME), "-d", dest, "-i", written(links)]

    def written(text):
        (place / "list").write_text(text)
        return place / "list"

    links = "".join(f"{url}/{cc}/{cc}.gif\n" for cc in codes)
    all_of_them = {
        OURS: lambda dest: ours("processes", dest),
        "coordinator --mode threads": lambda dest: ours("threads", dest),
        CURL: curl,
        "wget2": wget2,
        "aria2c": aria2,
        "script with threads and requests": script and (
            lambda dest: [*script, str(AT_A_TIME), url, dest, *codes]
        ),
    }
    for name, command in list(all_of_them.items()):
        program = command and command(place)[0]
        if not program or not shutil.which(program):
            say(f"{name}: not installed, and left out")
            del all_of_them[name]
    return all_of_them


def flags_in(folder):
    """What the server said about the flags may lie beside them."""
    return folder.glob("*.gif")


def download(command, place, sizes):
    """Seconds of the wall clock, and of CPUs with all children; nothing if it did not work.

    What it brought stays until the end: file systems search long for room for new files where
    others were removed a short while ago, and who saves in parallel waits for that in a queue."""
    dest = Path(tempfile.mkdtemp(dir=place))
    asked = [str(arg) for arg in command(dest)]
    begun = time.perf_counter()
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen(asked, start_new_session=True, stderr=subprocess.PIPE, **quiet)
    alarm = threading.Timer(60, os.killpg, (process.pid, signal.SIGKILL))
    alarm.start()
    try:
        # It says little, and only when it fails: that fits into the pipe.
        _, status, usage = os.wait4(process.pid, 0)
    except KeyboardInterrupt:
        peers.end(process)
        raise
    finally:
        alarm.cancel()
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    said = process.stderr.read().decode(errors="replace").strip()
    process.stderr.close()
    got = {flag.stem: flag.stat().st_size for flag in flags_in(dest)}
    if process.returncode != 0 or got != sizes:
        say(f"  failed with {process.returncode}: {len(got)} of {len(sizes)} flags: {said[-200:]}")
        return None
    return wall, usage.ru_utime + usage.ru_stime


def report(figures, where, rounds):
    told = f"{FLAGS} flags from {where}, {AT_A_TIME} at a time; medians of {rounds} rounds"
    print(f"{told}.\nOn {peers.machine()}.\n")
    ours, curls = figures.get(OURS), figures.get(CURL)
    if ours and curls:
        rows = []
        for what, which, most in GOALS:
            pairs = [(one[which], other[which]) for one, other in zip(ours, curls) if one and other]
            if pairs:
                times = statistics.median(one / other for one, other in pairs)
                spread = peers.summary([one / other for one, other in pairs])[1]
                reached = "yes" if times <= most else "no"
                rows.append([f"{what}: at most {most:g} x curl's", number(times), spread, reached])
        print(peers.table(["goal", "measured", "spread", "reached"], rows), end="\n\n")
    rows = []
    for name, each in figures.items():
        done = [one for one in each if one]
        if not done:
            continue
        wall, cpu = ([1000 * one[which] for one in done] for which in (0, 1))
        row = [f"**{name}**" if name == OURS else name, *peers.summary(wall), *peers.summary(cpu)]
        for which in (0, 1):
            pairs = [(a[which], b[which]) for a, b in zip(each, ours or []) if a and b]
            row.append(number(peers.ratio(*zip(*pairs))) if pairs else "–")
        rows.append((statistics.median(wall), row))
    rows = [row for _, row in sorted(rows, key=lambda row: row[0])]
    head = ["", "wall, ms", "spread", "CPU, ms", "spread", "wall x ours", "CPU x ours"]
    print(peers.table(head, rows))
    if "aria2c" in figures:
        print("\naria2c waits until each file has reached the disk, the others do not.")
    print("The coordinator writes no logs here (--no-logs).")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--rounds", type=peers.rounds, metavar="N", help="how often [default: 15]")
    parser.add_argument("--server", metavar="nginx|embedded|URL", help="from where")
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 15)

    coordinator = peers.ours("--bins") / "coordinator"
    python, there = peers.virtual_environment("requests")
    script = [python, peers.HERE / "threads_script.py"] if there else None
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        flags = place / "flags"
        all_flags = ["--all", "--no-logs", "--progress", "none", "-d", flags]
        given = options.server if options.server not in ("nginx", "embedded", None) else "LOCAL"
        subprocess.run([coordinator, *all_flags, "-s", given], check=True, stdout=sys.stderr)
        sizes = {flag.stem: flag.stat().st_size for flag in flags_in(flags)}
        with server(options.server, coordinator, place) as (url, where):
            todo = downloaders(coordinator, url, sorted(sizes), place, script)
            figures = {name: [None] * rounds for name in todo}
            # The first time, which is not counted, brings programs and flags into memory.
            for turn in range(-1, rounds):
                say(f"round {turn + 1} of {rounds}")
                for name, command in todo.items():
                    done = download(command, place, sizes)
                    if turn >= 0:
                        figures[name][turn] = done
            report(figures, where, rounds)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
