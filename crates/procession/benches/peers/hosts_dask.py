"""dask.distributed, as `hosts.py` measures it: a scheduler and two workers of one thread each."""

import os
import subprocess
import sys
import time

from dask.distributed import Client, as_completed

import hosts_tasks


def noop(n):
    return n


def started(*arguments):
    command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def answers(results, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not all(future.done() for future in results.values()):
        time.sleep(0.01)
    return sum(future.status != "finished" for future in results.values())


def main(tasks):
    port = hosts_tasks.free_port()
    address = f"tcp://127.0.0.1:{port}"
    processes = [started("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--dashboard-address", ":0")]
    try:
        hosts_tasks.await_port(port)
        for _ in range(2):
            worker = ["dask_worker", address, "--nthreads", "1", "--no-nanny", "--dashboard-address", ":0"]
            processes.append(started(*worker))
        client = Client(address)
        client.wait_for_workers(2, timeout=60)
        client.gather(client.map(noop, range(50), pure=False))
        begin = time.monotonic()
        for future in as_completed(client.map(noop, range(tasks), pure=False)):
            future.result()
        rate = tasks / (time.monotonic() - begin)
        begin = time.monotonic()
        for n in range(200):
            client.submit(noop, n, pure=False).result()
        one = (time.monotonic() - begin) / 200 * 1e6

        def submit(path, n):
            return client.submit(hosts_tasks.note, path, n, pure=False)

        hosts_tasks.tell(rate, one, *hosts_tasks.drill(submit, answers, lambda: hosts_tasks.kill(processes[1])))
    finally:
        for process in processes:
            hosts_tasks.kill(process)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.path.dirname(os.path.abspath(__file__))
    main(int(sys.argv[1]))
