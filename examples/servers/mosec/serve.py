"""A model behind mosec, which gathers requests into batches: ``python serve.py --port 8000``."""

import os
import time

from mosec import Server, Worker

COST_S = 0.005 * float(os.environ.get("SLOWDOWN", "1"))


class Sum(Worker):
    """A call costs 5 ms for any size of the batch."""

    def forward(self, data):
        time.sleep(COST_S)
        return [{"sum": sum(item["numbers"])} for item in data]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Sum, num=1, max_batch_size=16, max_wait_time=5, route="/predict")
    server.run()
