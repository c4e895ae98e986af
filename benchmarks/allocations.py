"""Do allocations per request show what instructions, CPU time and peak memory miss? Changes that allocate, each once.

    python benchmarks/allocations.py [NAMES] [--no-count]

The texts of :mod:`counted_models`, called in a process of its own, without a server. Bytes and blocks are those of
``malloc``, ``calloc`` and ``realloc``, by a library that is compiled here and loaded before the others, with
``PYTHONMALLOC=malloc``, so that Python's small objects are among them; CPU time, page faults and peak memory are of a
process without it. Instructions are of the service behind ``Single``, as the plugin counts them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from instructions import SERVICES, count, variables

HERE = Path(__file__).resolve().parent
CHANGES = ("empty 50", "bytes 50", "copy 50", "copy 5", "copy 1", "objects 300", "loop 230")
COUNTER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
static long blocks, bytes;
static void *(*real_malloc)(size_t), *(*real_calloc)(size_t, size_t), *(*real_realloc)(void *, size_t);
static char early[4096]; static size_t used;
void *malloc(size_t n) {
  if (!real_malloc) real_malloc = dlsym(RTLD_NEXT, "malloc");
  blocks++; bytes += n; return real_malloc(n);
}
void *calloc(size_t n, size_t size) {
  static int looking;
  if (!real_calloc) {
    if (looking) { void *at = early + used; used += (n * size + 15) & ~15ul; return at; }
    looking = 1; real_calloc = dlsym(RTLD_NEXT, "calloc");
  }
  blocks++; bytes += n * size; return real_calloc(n, size);
}
void *realloc(void *at, size_t n) {
  if (!real_realloc) real_realloc = dlsym(RTLD_NEXT, "realloc");
  blocks++; bytes += n; return real_realloc(at, n);
}
long counted_blocks(void) { return blocks; }
long counted_bytes(void) { return bytes; }
"""
CALLS = """
import ctypes, json, os, resource, time
from counted_models import Texts
model, batches = Texts(), [[f"word{n % 7} other and text number {n}"] for n in range(50)]
for batch in batches * 2:
    model(batch)
library = ctypes.CDLL(None)
def counted():
    return [getattr(library, name)() for name in names]
names = ["counted_blocks", "counted_bytes"] if "LD_PRELOAD" in os.environ else []
for name in names:
    getattr(library, name).restype = ctypes.c_long
before, each, faults = counted(), [], resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for batch in batches * 6:
    began = time.process_time()
    model(batch)
    each.append(time.process_time() - began)
found = [(now - then) / len(each) for then, now in zip(before, counted())]
used = resource.getrusage(resource.RUSAGE_SELF)
peak, faults = used.ru_maxrss, (used.ru_minflt - faults) / len(each)
cpu_ms = sorted(each)[len(each) // 4] * 1e3
print(json.dumps({"found": found, "faults": faults, "cpu_ms": cpu_ms, "peak_mib": peak / 1024}))
"""


def called(change: str, library: Path | None) -> dict[str, float]:
    """What a request costs a model with this change."""
    env = {**os.environ, "COUNTED_CHANGE": change, "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    if library is not None:
        env |= {"LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc"}
    done = subprocess.run([sys.executable, "-c", CALLS], cwd=HERE, env=env, check=True, capture_output=True, text=True)
    read = json.loads(done.stdout)
    blocks, size = read["found"] or (0.0, 0.0)
    return {"blocks": blocks, "bytes": size, **{name: read[name] for name in ("cpu_ms", "peak_mib", "faults")}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(CHANGES))
    parser.add_argument("--no-count", action="store_true")
    given = parser.parse_args()
    sys.path.insert(0, str(HERE))
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("there is no C compiler")
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        (directory / "counter.c").write_text(COUNTER, encoding="utf-8")
        library = directory / "counter.so"
        subprocess.run(
            [compiler, "-O2", "-shared", "-fPIC", "-o", library, directory / "counter.c", "-ldl"], check=True
        )
        requests = None
        for change in ("", "", *given.names):
            plain, counted = called(change, None), called(change, library)
            text = f"{counted['bytes']:14,.0f} bytes  {counted['blocks']:10,.2f} blocks  "
            text += (
                f"{plain['cpu_ms']:.3f} ms of CPU  {plain['peak_mib']:.1f} MiB at most  {plain['faults']:.1f} faults"
            )
            if not given.no_count:
                with variables({"COUNTED_CHANGE": change}):
                    found = count(SERVICES["sklearn, Single"], directory, requests=requests, calls=False)
                requests = found.requests
                text += f"  {found.per_request.value:12,.0f} instructions"
            print(f"{change or 'unchanged':12s} {text}", flush=True)


if __name__ == "__main__":
    main()
