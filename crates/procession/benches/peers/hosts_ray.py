"""ray, as `hosts.py` measures it: two nodes of one CPU each. The node without this program is killed."""

import os
import sys
import time

os.environ["PYTHONPATH"] = os.path.dirname(os.path.abspath(__file__))
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray.cluster_utils import Cluster

import hosts_tasks


@ray.remote
def noop(n):
    return n


@ray.remote
def noted(path, n):
    return hosts_tasks.note(path, n)


def answers(results, seconds):
    results = list(results.values())
    ready, left = ray.wait(results, num_returns=len(results), timeout=seconds)
    lost = len(left)
    for result in ready:
        try:
            ray.get(result)
        except ray.exceptions.RayError:
            lost += 1
    return lost


def main(tasks):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        cluster.wait_for_nodes()
        ray.get([noop.remote(n) for n in range(50)])
        begin = time.monotonic()
        ray.get([noop.remote(n) for n in range(tasks)])
        rate = tasks / (time.monotonic() - begin)
        begin = time.monotonic()
        for n in range(200):
            ray.get(noop.remote(n))
        one = (time.monotonic() - begin) / 200 * 1e6
        kill = lambda: cluster.remove_node(second, allow_graceful=False)
        hosts_tasks.tell(rate, one, *hosts_tasks.drill(noted.remote, answers, kill))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
