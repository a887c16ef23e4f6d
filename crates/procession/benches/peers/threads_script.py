"""Downloads flags as a beginner's script does: a pool of threads, and `requests.get` for each.

python3 threads_script.py THREADS BASE_URL DEST CC...
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests


def main(threads, base, dest, codes):
    def download(cc):
        answer = requests.get(f"{base}/{cc}/{cc}.gif", timeout=10)
        answer.raise_for_status()
        (Path(dest) / f"{cc}.gif").write_bytes(answer.content)

    with ThreadPoolExecutor(int(threads)) as executor:
        list(executor.map(download, codes))


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4:])
