#!/usr/bin/env python3
"""Measures other process pools when a task crashes: 1,000 tasks of 2 ms on 2 workers, one of which
kills its own process. The counterpart of `cargo run --release --example crash_storm`.

    python3 benches/peers/crash_storm.py

sets up a virtual environment in target/peers (the first time), installs loky and Pebble there, and
builds procspawn's part beside it. Each pool gets 30 seconds.
"""

import os
import signal
import subprocess
import sys
import time

import peers

TASKS = 1000


def work(n):
    time.sleep(0.002)
    if n == TASKS // 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def futures(executor):
    pending = [executor.submit(work, n) for n in range(TASKS)]
    return count(future.result for future in pending)


def count(getters):
    results = errors = 0
    for get in getters:
        try:
            get()
            results += 1
        except Exception:
            errors += 1
    return results, errors


def cpython():
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as executor:
        return futures(executor)


def with_loky():
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as executor:
        return futures(executor)


def with_pebble():
    from pebble import ProcessPool

    with ProcessPool(max_workers=2) as pool:
        pending = [pool.schedule(work, args=(n,)) for n in range(TASKS)]
        return count(future.result for future in pending)


def multiprocessing_pool():
    from multiprocessing import Pool

    results = 0
    with Pool(2) as pool:
        for _ in pool.imap_unordered(work, range(TASKS)):
            results += 1
            if results == TASKS - 1:
                print(f"{results} results, then it waits", flush=True)
    return results, 0


PEERS = {
    "concurrent.futures": cpython,
    "loky": with_loky,
    "Pebble": with_pebble,
    "multiprocessing.Pool": multiprocessing_pool,
}


def main():
    if len(sys.argv) == 2:
        began = time.perf_counter()
        results, errors = PEERS[sys.argv[1]]()
        print(f"{results} results, {errors} errors, {time.perf_counter() - began:.2f} s")
        return
    python, there = peers.virtual_environment("loky", "pebble")
    left_out = {"loky", "pebble"} - set(there)
    names = [name for name in PEERS if name.lower() not in left_out]
    commands = {name: [python, __file__, name] for name in names}
    if programs := peers.rust_peers():
        commands["procspawn"] = [programs / "procspawn_crash_storm"]
    for name, command in commands.items():
        print(f"{name:>22}: ", end="", flush=True)
        ended = peers.run(command, 30, stderr=subprocess.DEVNULL)
        if ended is None:
            print(f"{'':>22}  … still waiting after 30 s")
        elif ended.returncode != 0:
            print("did not run")


if __name__ == "__main__":
    main()
