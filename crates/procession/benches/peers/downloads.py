#!/usr/bin/env python3
"""All 194 flags, or any number of small files, from one server: `coordinator` in processes and on
threads beside curl, wget2, aria2 and a script, each in turn, for several rounds; time and CPU as tables
in Markdown.

    python3 benches/peers/downloads.py                      from nginx on loopback, if there is one
    python3 benches/peers/downloads.py --server embedded    from `coordinator serve`
    python3 benches/peers/downloads.py --server URL         from URL/br/br.gif and so on
    python3 benches/peers/downloads.py --urls 10000         as many other URLs from nginx, of which one in
                                                            a hundred is not there

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
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import peers
from peers import number, say

AT_A_TIME = 30
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
    for flag in (place / "flags").glob("*.gif"):
        folder = site / "flags" / flag.stem
        folder.mkdir(parents=True)
        shutil.copy(flag, folder)
    (site / "files").symlink_to(place / "files")
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
        wait_for(url, process)
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
        except urllib.error.HTTPError:
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the server does not answer: {error}")
            time.sleep(0.02)


class Job:
    """What is downloaded: the name of each file and its URL, and the sizes of those that are there."""

    def __init__(self, title, urls, sizes, ours):
        self.title, self.urls, self.sizes, self.ours = title, urls, sizes, ours
        # What each says with its exit status if files are not there.
        are_missing = len(sizes) < len(urls)
        self.statuses = {CURL: 22, "wget2": 8, "aria2c": 3} if are_missing else {}


def flags_job(url, sizes):
    urls = {name: f"{url}/{Path(name).stem}/{name}" for name in sorted(sizes)}
    return Job(f"{len(urls)} flags", urls, sizes, ["--all", "-s", url])


def urls_job(url, place, count):
    """Makes the files that are there: of 100 to 2,000 bytes."""
    base, folder = url.removesuffix("/flags"), place / "files"
    urls = {f"{n:06}.txt": f"{base}/files/{n:06}.txt" for n in range(count)}
    there = [name for n, name in enumerate(urls) if n % 100 != 50]
    for n, name in enumerate(there):
        (folder / name).write_bytes(b"x" * (100 + n % 1900))
    (place / "urls").write_text("".join(f"{url}\n" for url in urls.values()))
    sizes = {name: (folder / name).stat().st_size for name in there}
    title = f"{count} URLs ({count - len(there)} of them not there)"
    return Job(title, urls, sizes, ["fetch", "-i", place / "urls"])


def downloaders(coordinator, job, place, script):
    """For each: how to have it download all files to a directory."""
    def ours(mode, dest):
        much = [*job.ours, "--mode", mode, "-m", str(AT_A_TIME), "-d", dest]
        return [coordinator, *much, "--no-logs", "--progress", "none"]

    def curl(dest):
        pairs = (f'url = "{url}"\noutput = "{dest}/{name}"\n' for name, url in job.urls.items())
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

    links = "".join(f"{url}\n" for url in job.urls.values())
    all_of_them = {
        OURS: lambda dest: ours("processes", dest),
        "coordinator --mode threads": lambda dest: ours("threads", dest),
        CURL: curl,
        "wget2": wget2,
        "aria2c": aria2,
    }
    if "--all" in job.ours:
        codes, url = [Path(name).stem for name in job.urls], job.ours[-1]
        all_of_them["script with threads and requests"] = script and (
            lambda dest: [*script, str(AT_A_TIME), url, dest, *codes]
        )
    for name, command in list(all_of_them.items()):
        program = command and command(place)[0]
        if not program or not shutil.which(program):
            say(f"{name}: not installed, and left out")
            del all_of_them[name]
    return all_of_them


def sizes_in(folder):
    """What the server said about the files may lie beside them."""
    names = [file for file in folder.iterdir() if not file.name.startswith(".")]
    return {file.name: file.stat().st_size for file in names}


def download(name, command, place, job):
    """Seconds of the wall clock, and of CPUs with all children; nothing if it did not work.

    What it brought stays until the end: file systems search long for room for new files where
    others were removed a short while ago, and who saves in parallel waits for that in a queue."""
    dest = Path(tempfile.mkdtemp(dir=place))
    asked = [str(arg) for arg in command(dest)]
    begun = time.perf_counter()
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen(asked, start_new_session=True, stderr=subprocess.PIPE, **quiet)
    alarm = threading.Timer(600, os.killpg, (process.pid, signal.SIGKILL))
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
    got = sizes_in(dest)
    if process.returncode != job.statuses.get(name, 0) or got != job.sizes:
        right = sum(size == got.get(file) for file, size in job.sizes.items())
        told = f"{right} of {len(job.sizes)} files are whole, {len(got) - right} others are there"
        say(f"  {name} failed with {process.returncode}: {told}: {said[-200:]}")
        return None
    return wall, usage.ru_utime + usage.ru_stime


def report(figures, job, where, rounds):
    told = f"{job.title} from {where}, {AT_A_TIME} at a time; medians of {rounds} rounds"
    print(f"{told}.\nOn {peers.machine()}.\n")
    ours, curls = figures.get(OURS), figures.get(CURL)
    if ours and curls and "--all" in job.ours:
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
    parser.add_argument("--urls", type=int, metavar="N", help="so many URLs in place of the flags")
    parser.add_argument("--without", action="append", default=[], metavar="PROGRAM", help="leave out")
    parser.add_argument("--server", metavar="nginx|embedded|URL", help="from where")
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 15)

    coordinator = peers.ours("-p", "procession-cli", "--bins") / "coordinator"
    python, there = peers.virtual_environment("requests")
    script = [python, peers.HERE / "threads_script.py"] if there else None
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        flags = place / "flags"
        all_flags = ["--all", "--no-logs", "--progress", "none", "-d", flags]
        given = options.server if options.server not in ("nginx", "embedded", None) else "LOCAL"
        subprocess.run([coordinator, *all_flags, "-s", given], check=True, stdout=sys.stderr)
        (place / "files").mkdir()
        kind = options.server or ("nginx" if options.urls else None)
        with server(kind, coordinator, place) as (url, where):
            if options.urls:
                job = urls_job(url, place, options.urls)
            else:
                job = flags_job(url, sizes_in(flags))
            todo = downloaders(coordinator, job, place, script)
            todo = {name: do for name, do in todo.items() if name not in options.without}
            figures = {name: [None] * rounds for name in todo}
            # The first time, which is not counted, brings programs and flags into memory.
            for turn in range(-1, rounds):
                say(f"round {turn + 1} of {rounds}")
                for name, command in todo.items():
                    done = download(name, command, place, job)
                    if turn >= 0:
                        figures[name][turn] = done
            report(figures, job, where, rounds)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
