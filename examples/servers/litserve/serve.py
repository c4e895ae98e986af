"""A model behind LitServe, which gathers requests into batches: ``python serve.py 8000``."""

import os
import sys
import time

import litserve

COST_S = 0.005 * float(os.environ.get("SLOWDOWN", "1"))


class Sum(litserve.LitAPI):
    """A call costs 5 ms for any size of the batch."""

    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["numbers"]

    def batch(self, inputs):
        return inputs

    def predict(self, batch):
        time.sleep(COST_S)
        return [sum(numbers) for numbers in batch]

    def unbatch(self, outputs):
        return outputs

    def encode_response(self, output):
        return {"sum": output}


if __name__ == "__main__":
    api = Sum(max_batch_size=16, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
