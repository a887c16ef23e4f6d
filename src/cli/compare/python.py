"""The work of procession's `compare --task`, on the executors of CPython."""

import hashlib
import json
import sys
import time
from concurrent import futures

PIECE = 1024


def sha(seed, size):
    """SHA-256 of generated data, in pieces so small that hashlib keeps the GIL."""
    hasher = hashlib.sha256()
    for n in range((size + PIECE - 1) // PIECE):
        piece = (seed << 32 | n).to_bytes(8, "little") * (PIECE // 8)
        hasher.update(piece[: size - n * PIECE] if size - n * PIECE < PIECE else piece)
    return hasher.hexdigest()


def noop(_seed, _size):
    return "0"


WORK = {"sha": sha, "noop": noop}


class Sequential:
    """Runs each task where it is submitted."""

    def map(self, *args):
        return map(*args)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def main(work, jobs, size, mode, workers):
    pools = {
        "sequential": Sequential,
        "threads": lambda: futures.ThreadPoolExecutor(workers),
        "processes": lambda: futures.ProcessPoolExecutor(workers),
    }
    with pools[mode]() as pool:
        # All workers stand before the clock starts.
        list(pool.map(time.sleep, [0.02] * workers * 2))
        began = time.perf_counter()
        outputs = list(pool.map(WORK[work], range(jobs), [size] * jobs))
        seconds = time.perf_counter() - began
    digest = hashlib.sha256("".join(output + "\n" for output in outputs).encode()).hexdigest()
    told = {"seconds": seconds, "ok": jobs, "error": 0, "digest": digest, "first_error": None}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
