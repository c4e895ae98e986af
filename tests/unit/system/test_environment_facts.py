"""The environment of a process, as it describes itself and as it is seen from outside."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from support.each_row import each_row
from support.installed import installed_copy

from pytest_mlpatterns.system import environment_facts as module
from pytest_mlpatterns.system.environment_facts import VARIABLES, environment_facts, package_facts, process_facts
from pytest_mlpatterns.system.loaded_packages import imported_distributions, log_modules, logged_modules


def test_a_process_knows_its_system_its_python_and_the_packages_that_it_loaded() -> None:
    facts = environment_facts()
    assert facts["kernel"] == f"{platform.system()} {platform.release()}"
    assert facts["Python"].startswith(platform.python_version())
    assert facts["package numpy"] == np.__version__
    assert "package pytest" in facts
    assert "package json" not in facts, "the standard library comes with Python"
    assert "package tests" not in facts, "the project is what is measured"


def test_variables_that_set_threads_are_read_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")
    monkeypatch.setenv("LD_PRELOAD", "/opt/lib/libjemalloc.so.2:/opt/lib/libother.so")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    facts = environment_facts()
    assert facts["OMP_NUM_THREADS"] == "3"
    assert "OPENBLAS_NUM_THREADS" not in facts
    assert facts["LD_PRELOAD"] == "libjemalloc.so.2 libother.so"
    assert "secret" not in str(facts)


@each_row("name", ["MKL_NUM_THREADS", "KMP_AFFINITY", "PYTHONHASHSEED", "PYTHON_GIL", "OPENBLAS_CORETYPE"])
def test_a_variable_that_shapes_the_speed_is_known(name: str) -> None:
    assert VARIABLES.fullmatch(name)


@pytest.mark.parametrize("name", ["HOME", "PYTHONPATH", "KMP_INIT_AT_FORK", "MY_OMP_NUM_THREADS"])
def test_a_variable_that_does_not_or_that_libraries_set_themselves_is_not(name: str) -> None:
    assert not VARIABLES.fullmatch(name)


def test_loaded_packages_are_asked_for_their_threads_and_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> int:
        raise RuntimeError("no")

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: 6, get_num_interop_threads=fails))
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(get_available_providers=lambda: ["CUDA", "CPU"]))
    facts = environment_facts()
    assert facts["torch threads"] == "6"
    assert "torch interop threads" not in facts
    assert facts["onnxruntime providers"] == "CUDA, CPU"


def load(monkeypatch: pytest.MonkeyPatch, site: Path, *files: str) -> None:
    """Pretend that these files were imported, as modules of their names."""
    for file in files:
        name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setattr(sys.modules[name], "__file__", str(site / file), raising=False)


def test_loaded_packages_are_facts_by_their_distributions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    site, project = tmp_path / "site-packages", tmp_path / "shop"
    files = {"odd/__init__.py": "", "odd/part.py": "", "other.py": ""}
    installed_copy(site, None, files, name="Odd.Dist", version="1.2+cu1")
    installed_copy(site, None, {"space/one/__init__.py": ""}, name="space_one")
    installed_copy(site, None, {"space/two/__init__.py": ""}, name="space_two")
    installed_copy(site, project, {"__editable__shop.pth": ""}, name="shop", editable=True)
    (site / "Old_One-3.egg-info").mkdir()
    (site / "Old_One-3.egg-info" / "top_level.txt").write_text("older\n", encoding="utf-8")
    before = environment_facts()
    load(monkeypatch, site, "odd/__init__.py", "odd/part.py", "other.py", "space/one/__init__.py", "older.py")
    load(monkeypatch, project, "shop/__init__.py")
    now = environment_facts()
    assert (now["packages"], before["packages"]) == ("loaded", "loaded")
    assert {name: now[name] for name in now.keys() - before.keys()} == {
        "package odd-dist": "1.2+cu1",
        "package space-one": "1.0",
        "package old-one": "3",
    }


def test_what_a_process_writes_of_modules_is_read_by_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    site = installed_copy(tmp_path / "site-packages", None, {"odd/__init__.py": ""}, name="odd", version="1.2")
    assert logged_modules(tmp_path, os.getpid()) is None
    load(monkeypatch, site, "odd/__init__.py")
    log_modules(str(tmp_path))
    modules = logged_modules(tmp_path, os.getpid())
    assert modules is not None
    assert package_facts(modules)["package odd"] == "1.2"
    log_modules(str(tmp_path / "absent"))


def test_what_the_files_of_a_project_import_is_known_with_what_that_requires(tmp_path: Path) -> None:
    site = tmp_path / "env" / "lib" / "python3.11" / "site-packages"
    for name, version in {"features": "2", "base": "1.1", "extra": "1", "tools": "9"}.items():
        installed_copy(site, None, {f"{name}.py": ""}, name=name, version=version)
    with (site / "features-2.dist-info" / "METADATA").open("a", encoding="utf-8") as metadata:
        metadata.write("Requires-Dist: Base>=1; python_version > '3'\nRequires-Dist: extra; extra == 'all'\n")
    project = tmp_path / "shop"
    sources = {"shop.py": "import os\nif os:\n    from features import f\n", "test_shop.py": "import tools\n"}
    for path, text in {**sources, "tests/support.py": "import tools\n", ".tox/a.py": "import tools\n"}.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text, encoding="utf-8")
    found = imported_distributions(tmp_path / "env" / "bin" / "python", project)
    assert {one.name: one.version for one in found} == {"features": "2", "base": "1.1"}


def test_blas_and_its_threads_come_from_threadpoolctl(monkeypatch: pytest.MonkeyPatch) -> None:
    def pool(api: str, name: str, threads: int, **more: str) -> dict[str, object]:
        return {"user_api": api, "internal_api": name, "num_threads": threads, "version": "0.3", **more}

    pools = [  # in any order, as the files are mapped
        pool("blas", "openblas", 8, architecture="Haswell", threading_layer="pthreads"),
        pool("blas", "openblas", 2, architecture="Haswell", threading_layer="pthreads"),
        {**pool("openmp", "openmp", 4), "version": None},
    ]
    monkeypatch.setitem(sys.modules, "threadpoolctl", SimpleNamespace(threadpool_info=lambda: pools))
    facts = environment_facts()
    assert facts["BLAS"] == "openblas 0.3 Haswell pthreads"
    assert facts["BLAS threads"] == "2, 8"
    assert (facts["OpenMP"], facts["OpenMP threads"]) == ("openmp", "4")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_without_threadpoolctl_the_files_of_blas_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    facts = environment_facts()
    assert "blas" in facts["BLAS library"]
    assert "BLAS threads" not in facts


def test_what_the_system_does_not_offer_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_first_line", lambda _: "")
    monkeypatch.delattr(os, "confstr")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    facts = environment_facts()
    assert {"libc", "governor", "huge pages", "GPU driver", "allowed cores"}.isdisjoint(facts)


def test_the_driver_of_a_gpu_and_the_use_of_huge_pages_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {
        "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19",
        "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    }
    monkeypatch.setattr(module, "_first_line", lambda file: lines.get(file, ""))
    facts = environment_facts()
    assert facts["GPU driver"] == "535.129.03"
    assert facts["huge pages"] == "madvise"


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_another_process_is_seen_from_outside() -> None:
    code = "import numpy, sys; print(flush=True); sys.stdin.read()"
    environment = {**os.environ, "MKL_NUM_THREADS": "5"}
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        facts = process_facts(process.pid)
        process.communicate()
    assert facts["MKL_NUM_THREADS"] == "5"
    assert facts["Python"] == environment_facts()["Python"]
    assert facts["package numpy"] == np.__version__
    assert "blas" in facts["BLAS library"]
    assert process_facts(process.pid) == {}


@pytest.mark.processes
def test_a_program_that_is_no_python_of_ours_is_named() -> None:
    with subprocess.Popen(["cat"], stdin=-1) as process:
        facts = process_facts(process.pid)
        process.communicate()
    assert facts["program"]
    assert "Python" not in facts
