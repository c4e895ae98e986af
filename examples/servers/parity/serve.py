"""The model behind LitServe, which gathers requests into batches: ``python serve.py 8000``.

``SLOWDOWN=10`` makes this side slower, and not the other one.
"""

import os
import sys
import time

import litserve
from model import squares

EXTRA_S = 0.05 * (float(os.environ.get("SLOWDOWN", "1")) - 1)


class Squares(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["input"]

    def batch(self, inputs):
        return inputs

    def predict(self, batch):
        time.sleep(EXTRA_S)
        return squares(batch)

    def unbatch(self, outputs):
        return outputs

    def encode_response(self, output):
        return {"output": output}


if __name__ == "__main__":
    api = Squares(max_batch_size=16, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
