"""One figure of one of Python's process pools, as JSON: dispatch.py runs this in turn with others.

    python3 python_pools.py POOL MEASURE [NAME=NUMBER]...
"""

import json
import os
import resource
import statistics
import sys
import time
from concurrent.futures import as_completed


def nothing(n):
    pass


def same(data):
    return data


def keep_to_cpu():
    """In a worker: keeps to the CPU that the script has named, if it has."""
    if cpu := os.environ.get("PEER_WORKER_CPU"):
        os.sched_setaffinity(0, {int(cpu)})


class Futures:
    """A pool that hands out futures: CPython's own, and loky's."""

    def __init__(self, workers):
        self.executor = self.start(workers)

    def start(self, workers):
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        return ProcessPoolExecutor(workers, get_context("fork"), keep_to_cpu)

    def submit(self, function, argument):
        return self.executor.submit(function, argument)

    def run(self, function, argument):
        return self.submit(function, argument).result()

    def batch(self, tasks):
        for future in as_completed([self.submit(nothing, n) for n in range(tasks)]):
            future.result()

    def map(self, tasks, chunk):
        return self.executor.map(nothing, (n for n in range(tasks)), chunksize=chunk)

    def end(self):
        self.executor.shutdown()


class Loky(Futures):
    def start(self, workers):
        from loky import ProcessPoolExecutor

        return ProcessPoolExecutor(workers, initializer=keep_to_cpu)


class Pebble(Futures):
    def start(self, workers):
        from pebble import ProcessPool

        return ProcessPool(max_workers=workers, initializer=keep_to_cpu)

    def submit(self, function, argument):
        return self.executor.schedule(function, args=(argument,))

    def map(self, tasks, chunk):
        return self.executor.map(nothing, (n for n in range(tasks)), chunksize=chunk).result()

    def end(self):
        self.executor.close()
        self.executor.join()


class Multiprocessing:
    """It has no futures; imap_unordered comes nearest to as_completed, and is the fastest."""

    def __init__(self, workers):
        from multiprocessing import get_context

        self.pool = get_context("fork").Pool(workers, keep_to_cpu)

    def run(self, function, argument):
        return self.pool.apply(function, (argument,))

    def batch(self, tasks):
        for _ in self.pool.imap_unordered(nothing, range(tasks)):
            pass

    def map(self, tasks, chunk):
        return self.pool.imap_unordered(nothing, (n for n in range(tasks)), chunksize=chunk)

    def end(self):
        self.pool.terminate()


POOLS = {"cpython": Futures, "loky": Loky, "pebble": Pebble, "multiprocessing": Multiprocessing}


def median(once, times=None, seconds=1.0):
    """Does it again and again until the time is over; the median of how long it took."""
    begun, taken = time.perf_counter(), []
    while True:
        start = time.perf_counter()
        # What is to be timed may say itself how long it took.
        taken.append(once() or time.perf_counter() - start)
        is_enough = times is not None and len(taken) >= times
        if is_enough or time.perf_counter() - begun >= seconds:
            return statistics.median(taken)


def measure(kind, what, asked):
    limits = {name: asked[name] for name in ("times", "seconds") if name in asked}
    if what == "start_up":
        kept = []

        def once():
            # The one before is ended outside of the time.
            while kept:
                kept.pop().end()
            start = time.perf_counter()
            kept.append(kind(2))
            kept[0].run(nothing, 7)
            return time.perf_counter() - start

        once()
        value = median(once, **limits) * 1e3
        kept.pop().end()
        return value
    pool = kind(int(asked.get("workers", 1 if what in ("round_trip", "payload") else 2)))
    pool.run(nothing, 7)
    if what == "dispatch":
        batch = int(asked["batch"])
        # All that is only done once, as with the others.
        pool.batch(batch)
        value = batch / median(lambda: pool.batch(batch), **limits)
    elif what == "map":
        tasks, start = int(asked["tasks"]), time.perf_counter()
        assert sum(1 for _ in pool.map(tasks, int(asked.get("chunk", 1)))) == tasks
        value = tasks / (time.perf_counter() - start)
    elif what == "round_trip":
        value = median(lambda: pool.run(nothing, 7), **limits) * 1e6
    elif what == "payload":
        data = b"x" * (int(asked.get("mib", 64)) << 20)

        def once():
            assert len(pool.run(same, data)) == len(data)

        value = median(once, **limits) * 1e3
    else:
        sys.exit(f"no such measure: {what}")
    pool.end()
    return value


def main():
    kind, what = POOLS[sys.argv[1]], sys.argv[2]
    asked = {name: float(value) for name, value in (arg.split("=") for arg in sys.argv[3:])}
    value = measure(kind, what, asked)
    # Of this process alone; in KiB, except on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mib = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(json.dumps({"value": value, "peak_mib": peak_mib}))


if __name__ == "__main__":
    main()
