"""A model that costs 2 ms a call, whatever the size of the batch."""

import time


def double(batch):
    time.sleep(0.002)
    return [2 * number for number in batch]
