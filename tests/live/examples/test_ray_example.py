"""The example for Ray clusters: its tests run on this machine, and its job for KubeRay has the form that KubeRay takes.

No Kubernetes runs here. The fields are those of the custom resource ``ray.io/v1`` RayJob which the file uses.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT
from support.project import OPTIONS as WITHOUT_NEIGHBOURS
from support.project import clean_environment

from pytest_mlpatterns.plugin.options import OPTIONS

FOLDER = ROOT / "examples" / "ray"
JOB = {
    "entrypoint": str,
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "rayClusterSpec": dict,
}
HEAD = {"rayStartParams": dict, "template": dict}


def check(found: Mapping[str, Any], allowed: Mapping[str, type]) -> None:
    """Every field is one of those, with a value of its type."""
    assert {name: type(value) for name, value in found.items()} == {name: allowed[name] for name in found}


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    found = yaml.safe_load((FOLDER / "rayjob.yaml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_job_has_the_fields_of_the_resource(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    check(job["spec"], JOB)
    check(cluster, {"rayVersion": str, "headGroupSpec": dict, "workerGroupSpecs": list})
    check(cluster["headGroupSpec"], HEAD)
    for group in cluster["workerGroupSpecs"]:
        check(group, {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, **HEAD})
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert {type(value) for value in group["rayStartParams"].values()} <= {str}
        (container,) = group["template"]["spec"]["containers"]
        check(container, {"name": str, "image": str, "resources": dict, "volumeMounts": list})
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_job_has_the_image_and_the_versions_of_the_dockerfile(job: dict[str, Any]) -> None:
    base = re.search(r"^FROM rayproject/ray:([\d.]+)-py\d+$", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), re.M)
    cluster = job["spec"]["rayClusterSpec"]
    images = {
        container["image"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
        for container in group["template"]["spec"]["containers"]
    }
    assert cluster["rayVersion"] == base[1]
    assert len(images) == 1


def test_job_mounts_the_volume_to_which_its_files_are_written(job: dict[str, Any]) -> None:
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    files = re.findall(r"--perf-(?:json|html|baseline-file)=(/\w+)/", job["spec"]["entrypoint"])
    assert set(mounted) == {volume["name"] for volume in pod["volumes"]}
    assert len(files) == 3
    assert set(files) == set(mounted.values())


def test_files_of_the_image_are_those_of_the_folder() -> None:
    copied = re.search(r"^COPY --chown=\S+ (.+) \./$", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), re.M)
    assert set(copied[1].split()) == {file.name for file in FOLDER.iterdir() if file.suffix in (".py", ".ini")}


@pytest.mark.processes
def test_command_of_the_job_measures_the_tests_on_this_machine(job: dict[str, Any], tmp_path: Path) -> None:
    """With the local engine; ``make ray`` runs the same tests on a cluster."""
    shutil.copytree(FOLDER, tmp_path / "perf", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    change, command = job["spec"]["entrypoint"].split(" && ")
    words = shlex.split(command.replace("/results", str(tmp_path)).replace("--perf-engine ray", "--perf-engine local"))
    named = re.findall(r"--perf-([\w-]+)", command)
    assert change == "cd /home/ray/perf"
    assert words[:3] == ["python", "-m", "pytest"]
    assert set(named) <= set(OPTIONS)
    done = subprocess.run(
        [sys.executable, *words[1:], "-p", "no:cacheprovider", *WITHOUT_NEIGHBOURS, "--perf-smoke"],
        cwd=tmp_path / "perf",
        env=clean_environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "perf-results.json").exists()
