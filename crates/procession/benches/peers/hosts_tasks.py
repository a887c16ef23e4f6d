"""What the scripts of other systems have in common that `hosts.py` measures."""

import json
import os
import signal
import socket
import tempfile
import time

# As many tasks of 2 ms as in the example hosts_figures, and when one worker is killed.
TASKS = 1000
KILL_AT = 200
# How long the tasks are waited for after that.
PATIENCE = 60


def note(path, n):
    with open(path, "a") as file:
        file.write(f"{n}\n")
    time.sleep(0.002)
    return n


def notes(path):
    try:
        return [line for line in open(path).read().split("\n") if line]
    except FileNotFoundError:
        return []


def kill(process):
    """With all processes that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def drill(submit, answers, kill_one):
    """Kills a worker in the middle: how many tasks have no answer, how many began twice, and how long it took."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "notes")
        results = {n: submit(path, n) for n in range(TASKS)}
        deadline = time.monotonic() + PATIENCE
        while len(notes(path)) < KILL_AT and time.monotonic() < deadline:
            time.sleep(0.002)
        kill_one()
        begin = time.monotonic()
        lost = answers(results, PATIENCE)
        seconds = time.monotonic() - begin
        begun = notes(path)
        return lost, len(begun) - len(set(begun)), seconds


def tell(rate, one, lost, twice, seconds):
    print(
        json.dumps(
            {
                "submit + as_completed, tasks/s": rate,
                "one in flight, us": one,
                "one of two killed: lost": lost,
                "one of two killed: begun twice": twice,
                "one of two killed: done after, s": seconds,
            }
        ),
        flush=True,
    )


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def await_port(port):
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
