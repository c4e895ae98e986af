"""Options of the Ray engine; loaded with every pytest, so that it imports nothing."""

OPTIONS = {
    "ray-address": {
        "metavar": "HOST:PORT",
        "help": "the Ray cluster of engine=ray: its address, or auto for the one on this machine (default: the "
        "environment variable RAY_ADDRESS; without both, a Ray of this run's own)",
    },
    "ray-runtime-env": {
        "metavar": "JSON",
        "help": "Ray's runtime environment of the processes on the nodes, as a JSON object or the path of a .json or "
        '.yaml file: {"working_dir": "."}',
    },
}
"""Arguments of argparse for option ``--perf-NAME`` and ini key ``perf_NAME``, as in ``plugin/options.py``."""
