"""A distribution as an installer leaves it in site-packages: its files and its metadata."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path


def installed_copy(
    site: Path,
    source: Path | None,
    files: Mapping[str, str],
    *,
    name: str = "shop",
    version: str = "1.0",
    editable: bool = False,
) -> Path:
    """Install files, by path, into a folder, as ``pip install DIRECTORY`` does; returns the folder.

    ``direct_url.json`` names the source, and says with ``editable`` that the code is not copied; without one it is a
    distribution of an index.
    """
    metadata = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}
    folder = f"{name}-{version}.dist-info"
    if source is not None:
        url = {"url": source.as_uri(), "dir_info": {"editable": True} if editable else {}}
        metadata["direct_url.json"] = json.dumps(url)
    all_files = {**files, **{f"{folder}/{part}": text for part, text in metadata.items()}}
    record = f"{folder}/RECORD"
    all_files[record] = "".join(f"{path},,\n" for path in [*all_files, record])
    for path, text in all_files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text, encoding="utf-8")
    return site


def wheel(folder: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """A wheel of pure Python, as an index serves it."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = f"{name}-{version}.dist-info"
    about = {
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{metadata}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    listed = [*files, *about, f"{metadata}/RECORD"]
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, **about, listed[-1]: "".join(f"{one},,\n" for one in listed)}.items():
            archive.writestr(file, text)
    return path
