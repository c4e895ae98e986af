"""A Ray cluster of three nodes on this machine, until its input closes; it obeys commands, one a line.

It prints ``address HOST:PORT`` when the nodes run, and one line for each command that is done.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_enable_worker_prestart="0", RAY_AUTH_MODE="disabled")

import psutil
from ray.cluster_utils import Cluster

CPUS = 4
STORE_BYTES = 100 << 20


def add(cluster: Cluster, ip: str, **more: Any) -> Any:
    return cluster.add_node(
        node_ip_address=ip, num_cpus=CPUS, object_store_memory=STORE_BYTES, include_dashboard=False, **more
    )


def lose_power(node: Any) -> None:
    """End all processes of a node at once, as where a machine loses its power: none of them sees another one end."""
    (raylet,) = node.all_processes["raylet"]
    first = psutil.Process(raylet.process.pid)
    processes = [first, *first.children(recursive=True)]
    for process in processes:
        process.suspend()
    for process in processes:
        process.kill()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mlt-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        os.environ["RAY_TMPDIR"] = directory  # there Cluster writes which one runs, and makes no folder for it
        Path(directory, "ray").mkdir()
        cluster = Cluster()
        nodes = {"2": add(cluster, "127.0.0.2", temp_dir=directory)}
        nodes |= {last: add(cluster, f"127.0.0.{last}") for last in ("3", "4")}
        say(f"address {cluster.address}")
        for line in sys.stdin:
            command, _, last = line.strip().partition(" ")
            if command == "kill":
                lose_power(nodes[last])
                cluster.remove_node(nodes.pop(last), allow_graceful=False)
            elif command == "add":
                nodes[last] = add(cluster, f"127.0.0.{last}")
            say(f"{line.strip()} done")
        cluster.shutdown()


main()
