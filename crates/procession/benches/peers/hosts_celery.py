"""Celery with redis, as `hosts.py` measures it: two workers of one process each, results in redis.

The workers acknowledge late, and give back what a lost one had: what Celery offers for tasks that must not be lost.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time

from celery import Celery

import hosts_tasks

PORT = os.environ.get("HOSTS_REDIS_PORT", "0")
app = Celery("hosts_celery", broker=f"redis://127.0.0.1:{PORT}/0", backend=f"redis://127.0.0.1:{PORT}/1")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
    # The default is an hour; what a killed worker had comes back after this time.
    broker_transport_options={"visibility_timeout": 10},
    result_expires=600,
)


@app.task
def noop(n):
    return n


@app.task
def noted(path, n):
    return hosts_tasks.note(path, n)


def worker(name):
    command = [sys.executable, "-m", "celery", "-A", "hosts_celery", "worker", "--concurrency", "1"]
    command += ["--hostname", name, "--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def answers(results, seconds):
    """Which of them have a result, waiting for all of them as long as this."""
    deadline = time.monotonic() + seconds
    open_ones = dict(results)
    while open_ones and time.monotonic() < deadline:
        for n in [n for n, result in open_ones.items() if result.ready()]:
            del open_ones[n]
        time.sleep(0.01)
    return len(open_ones)


def main(tasks):
    workers = [worker("one"), worker("two")]
    try:
        for result in [noop.delay(n) for n in range(50)]:
            result.get(timeout=60)
        begin = time.monotonic()
        for result in [noop.delay(n) for n in range(tasks)]:
            result.get(timeout=120)
        rate = tasks / (time.monotonic() - begin)
        begin = time.monotonic()
        for n in range(200):
            noop.delay(n).get(timeout=60)
        one = (time.monotonic() - begin) / 200 * 1e6
        hosts_tasks.tell(rate, one, *hosts_tasks.drill(submit, answers, lambda: hosts_tasks.kill(workers[0])))
    finally:
        for process in workers:
            hosts_tasks.kill(process)


def submit(path, n):
    return noted.delay(path, n)


if __name__ == "__main__":
    if not shutil.which("redis-server"):
        sys.exit("redis-server is not there: apt-get install redis-server")
    with tempfile.TemporaryDirectory() as directory:
        port = hosts_tasks.free_port()
        server = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", directory, "--appendonly", "yes"],
            stdout=subprocess.DEVNULL,
        )
        try:
            hosts_tasks.await_port(port)
            # The workers import this file, and find the server by the same variable.
            os.environ["HOSTS_REDIS_PORT"] = str(port)
            os.environ["PYTHONPATH"] = os.path.dirname(os.path.abspath(__file__))
            import hosts_celery

            hosts_celery.main(int(sys.argv[1]))
        finally:
            server.kill()
            server.wait()
