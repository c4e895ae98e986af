"""JSON values with something changed in them, as a bad merge, an editor or an attacker leaves them."""

import copy
import random
from collections.abc import Iterator
from typing import Any

ENTRY: dict[str, Any] = {
    "setup": {"pattern": "single", "load": "closed(1)", "wire": "rest+json", "payload": "sha256:0"},
    "metrics": {"rtm": [[1000, 0.01], [1001.5, 0]]},
    "versions": {"numpy": "2.0.0"},
    "commit": None,
    "date": "2026-11-24",
    "anchor": {"metrics": {"rtm": [[1000, 0.01]]}, "commit": "1a2b3c4", "date": "2026-01-31", "updates": 3},
    "latency": [[1, 900], [50, 1000], [99.9, 2000]],
    "counts": {"001": [300, 8, [[4096000, 150], [4128768, 142]]]},
    "disturbed": ["8 of 7,406 requests failed"],
    "sorting_ns": [701_500, 698_200],
}
"""An entry of a baseline file with every member."""


def _nested(depth: int) -> list[Any]:
    return [_nested(depth - 1)] if depth else []


STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    -5.5,
    1e-300,
    1e17,
    1e308,
    -1e308,
    float("inf"),
    float("nan"),
    10**400,
    "",
    "text",
    "\x1b[2J\x1b]0;owned\x07",
    "\ud800",
    "\u202egnp",
    "n" * 300,
    [],
    {},
    [1, 2],
    [[1, 2], [0, 1]],
    {"a": 1},
    {"\ud800": 1},
    [None],
    _nested(40),
)
"""Values that stand where others belong."""


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value, with each key or index in it."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield value, key
        yield from places(member)


def _alike(value: Any, chance: random.Random) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return chance.choice((0, 1, -1, 2, value + 1, 10**17, value * 2))
    if isinstance(value, float):
        return chance.choice((0.0, -1.0, 1e-300, 1.0, value * 2, -value, 1e17, 5e-324))
    if isinstance(value, str):
        return chance.choice(
            ("", "\x1b[2J", value * 2, value[: len(value) // 2], "closed(0)", "p99<1ns", "fail", "\n::error::x")
        )
    if isinstance(value, list):
        return chance.choice(([], value[::-1], value[:1], value[:-1], value + value))
    return chance.choice(({}, dict(list(value.items())[:1]), dict(list(value.items())[1:])))


def damaged(value: Any, chance: random.Random, changes: int) -> Any:
    """A copy with so many members replaced, removed, doubled or renamed."""
    changed = copy.deepcopy(value)
    for _ in range(changes):
        container, key = chance.choice(list(places(changed)))
        how = chance.random()
        if how < 0.4:
            container[key] = _alike(container[key], chance)
        elif how < 0.8:
            container[key] = copy.deepcopy(chance.choice(STRANGE))
        elif how < 0.9:
            del container[key]
        elif isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        else:
            container[chance.choice(("surprise", "\x1b[31m", "10", "nmrt(p95<1e400ms)", "rtm"))] = container[key]
    return changed
