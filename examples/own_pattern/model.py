"""A model that raises an error or takes long for some inputs, and another one that knows less and is always there."""

import asyncio


async def double(batch):
    if any(number % 10 == 0 for number in batch):
        raise ValueError("no doubles of tens")
    await asyncio.sleep(0.5 if any(number % 10 == 5 for number in batch) else 0.002)
    return [2 * number for number in batch]


def unknown(batch):
    return ["unknown" for _ in batch]
