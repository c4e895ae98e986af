"""A model for MLServer, which gathers requests into batches; ``model-settings.json`` names it."""

import os
import time

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

COST_S = 0.005 * float(os.environ.get("SLOWDOWN", "1"))


class Sums(MLModel):
    """A call costs 5 ms for any size of the batch."""

    async def load(self):
        return True

    async def predict(self, payload):
        time.sleep(COST_S)
        numbers = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("sum", numbers.sum(axis=1))])
