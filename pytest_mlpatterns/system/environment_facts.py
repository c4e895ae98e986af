"""The environment of a process: what of the system, of Python and of libraries shapes its speed.

A process describes itself (:func:`own_facts`), and lists the modules that it has loaded, whose packages another process
finds (:func:`package_facts`). From outside (:func:`process_facts`) fewer facts are seen: no number of threads, and
unless the process lists its modules, packages with native code and those that the files of its project import. Only
the variables of :data:`VARIABLES` are read, since others may be secrets. This module must not know what serves, nor
what is compared.
"""

import contextlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from pytest_mlpatterns.credentials import HIDDEN, is_credential
from pytest_mlpatterns.records.setup import CODE_VARIABLES, PACKAGE, PACKAGES, EnvironmentFacts
from pytest_mlpatterns.system.cgroups import memory_limit_bytes, quota_cores
from pytest_mlpatterns.system.loaded_packages import (
    Distribution,
    distributions_of,
    imported_distributions,
    loaded_modules,
)
from pytest_mlpatterns.units import format_size

VARIABLES = re.compile(
    "(OMP|MKL)_[A-Z0-9_]+|KMP_(?!DUPLICATE_LIB_OK|INIT_AT_FORK)[A-Z0-9_]+|(OPENBLAS|BLIS|GOTO|RAYON)_NUM_THREADS|"
    "(NUMEXPR|VECLIB)_[A-Z_]+|MALLOC_ARENA_MAX|TOKENIZERS_PARALLELISM|POLARS_MAX_THREADS|CUDA_VISIBLE_DEVICES|"
    f"PYTHON(MALLOC|_?GIL|_JIT|OPTIMIZE|HASHSEED|DEVMODE)|{CODE_VARIABLES}"
)
"""Environment variables that shape the speed of a process. Two that scikit-learn sets by itself are left out."""
_LONGEST = 80  # Longest value that is kept of a variable
_BLAS = re.compile(r"(?:lib)?(?:[a-z_]*openblas|mkl_rt|mkl_core|blis|flexiblas|cblas|atlas|armpl|nvpl_blas)[^/]*\.so")
_ASKED = {
    "torch threads": ("torch", "get_num_threads"),
    "torch interop threads": ("torch", "get_num_interop_threads"),
    "torch float32 precision": ("torch", "get_float32_matmul_precision"),
    "OpenCV threads": ("cv2", "getNumThreads"),
    "MKL threads": ("mkl", "get_max_threads"),
    "polars threads": ("polars", "thread_pool_size"),
    "onnxruntime providers": ("onnxruntime", "get_available_providers"),
}
"""Functions of loaded packages without arguments, by the name of what they return."""
_ANY = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What a function of another package may raise; a fact that it does not give is not known."""


def environment_facts() -> EnvironmentFacts:
    """The environment of this process, with the packages that it has loaded so far and their threads."""
    packages = package_facts(loaded_modules())  # before those that this module loads
    return {**own_facts(), **packages}


def own_facts() -> EnvironmentFacts:
    """The environment of this process without its packages; imports no package of the user's that is not loaded."""
    return {**_of_system(), **_limits(), **_of_python(), **_of_variables(os.environ), **_native_threads(), **_asked()}


def process_facts(pid: int, modules: Iterable[str] | None = None) -> EnvironmentFacts:
    """The environment of another process of this user, as far as it is seen from outside; empty if it has ended.

    ``modules``: what it has loaded, as :func:`loaded_modules` of it gives them; None if it does not list them.
    """
    try:
        process = psutil.Process(pid)
        environment, program = process.environ(), os.path.realpath(process.exe())
    except (psutil.Error, OSError):
        return {}
    is_ours = program == os.path.realpath(sys.executable)
    return {
        **_of_system(),
        **_limits(pid),
        **(_of_python() if is_ours else {"program": os.path.basename(program)}),
        **_of_variables(environment),
        **dict(_mapped_packages(pid)),
        **(_imported_packages(process) if modules is None else package_facts(modules)),
    }


def _of_system() -> dict[str, str]:
    found = {"kernel": f"{platform.system()} {platform.release()}", "libc": _libc()}
    found["governor"] = _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    found["GPU driver"] = _in_text(r"Kernel Module\D*([\d.]+)", _first_line("/proc/driver/nvidia/version"))
    huge_pages = _first_line("/sys/kernel/mm/transparent_hugepage/enabled")
    found["huge pages"] = _in_text(r"\[(\w+)\]", huge_pages)
    return {name: value for name, value in found.items() if value}


def _libc() -> str:
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    return ""


def _limits(pid: int | None = None) -> dict[str, str]:
    """The part of the machine that a container, or the starter of the process, gives it."""
    own = Path("/proc", "self" if pid is None else str(pid))
    quota, memory = quota_cores(own), memory_limit_bytes(own)
    found = {
        "CPU quota": "none" if quota is None else f"{quota:.3g} cores",
        "memory limit": "none" if memory is None else format_size(memory),
    }
    if hasattr(os, "sched_getaffinity"):
        with contextlib.suppress(OSError):
            found["allowed cores"] = str(len(os.sched_getaffinity(pid or 0)))
    return found


def _of_variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: HIDDEN if is_credential(name, value) else _without_folders(name, value)[:_LONGEST]
        for name, value in environment.items()
        if value and VARIABLES.fullmatch(name)
    }


def _without_folders(name: str, value: str) -> str:
    """The files that a variable names without their folders, which differ from machine to machine."""
    return " ".join(map(os.path.basename, re.split("[ :]+", value))) if name == "LD_PRELOAD" else value


def _of_python() -> dict[str, str]:
    found = {"Python": platform.python_version(), "Python build": platform.python_compiler().strip("[]")}
    if platform.python_implementation() != "CPython":
        found["Python"] += f" ({platform.python_implementation()})"
    if (is_enabled := getattr(sys, "_is_gil_enabled", None)) is not None:
        found["GIL"] = "on" if is_enabled() else "off"
    return found


def package_facts(modules: Iterable[str]) -> EnvironmentFacts:
    """The packages of a process and their versions, by what :func:`loaded_modules` of it gives."""
    return {PACKAGES: "loaded", **_versions(distributions_of(modules))}


def _versions(distributions: Iterable[Distribution]) -> dict[str, str]:
    return {f"{PACKAGE}{one.name}": one.version for one in distributions}


def _imported_packages(process: psutil.Process) -> EnvironmentFacts:
    """What the files of the project of a Python process import; nothing of another program."""
    with contextlib.suppress(psutil.Error, OSError):
        program = next(iter(process.cmdline()), "")  # one that has just begun, or ended, has no words
        python = shutil.which(program, path=process.environ().get("PATH")) or program
        if os.path.basename(python).startswith("python"):
            return {PACKAGES: "imported", **_versions(imported_distributions(Path(python), Path(process.cwd())))}
    return {}


def _mapped_packages(pid: int) -> Iterator[tuple[str, str]]:
    """The packages whose native code another process has loaded, and its BLAS (Linux)."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has ended, belongs to another user, or there is no /proc
        return
    files = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if ".so" in line}
    if libraries := sorted(os.path.basename(file) for file in files if _BLAS.match(os.path.basename(file))):
        yield "BLAS library", ", ".join(libraries)
    yield from _versions(distributions_of(files)).items()


def _native_threads() -> dict[str, str]:
    """BLAS and OpenMP with their threads if threadpoolctl is installed; else the names of the BLAS libraries."""
    try:
        import threadpoolctl

        pools: list[dict[str, Any]] = threadpoolctl.threadpool_info()
    except _ANY:
        return {name: value for name, value in _mapped_packages(os.getpid()) if not name.startswith(PACKAGE)}
    found: dict[str, set[str]] = {}  # the pools come as their libraries lie in memory
    for pool in pools:
        kind = {"blas": "BLAS", "openmp": "OpenMP"}.get(pool["user_api"], pool["user_api"])
        about = (pool["internal_api"], pool["version"], pool.get("architecture"), pool.get("threading_layer"))
        found.setdefault(kind, set()).add(" ".join(filter(None, about)))
        found.setdefault(f"{kind} threads", set()).add(str(pool["num_threads"]))
    return {name: ", ".join(sorted(values)) for name, values in found.items()}


def _asked() -> dict[str, str]:
    """What loaded packages answer of themselves."""
    found = {}
    for fact, (package, function) in _ASKED.items():
        if (module := sys.modules.get(package)) is not None:
            with contextlib.suppress(*_ANY):
                value = getattr(module, function)()
                found[fact] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return found


def _first_line(file: str) -> str:
    with contextlib.suppress(OSError):
        return Path(file).read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    return ""


def _in_text(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""
