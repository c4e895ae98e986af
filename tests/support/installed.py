"""A distribution as an installer leaves it in site-packages: its files and its metadata."""

import json
from collections.abc import Mapping
from pathlib import Path


def installed_copy(
    site: Path, source: Path | None, files: Mapping[str, str], *, name: str = "shop", editable: bool = False
) -> Path:
    """Install files, by path, into a folder, as ``pip install DIRECTORY`` does; returns the folder.

    ``direct_url.json`` names the source, and says with ``editable`` that the code is not copied; without one it is a
    distribution of an index.
    """
    metadata = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"}
    if source is not None:
        url = {"url": source.as_uri(), "dir_info": {"editable": True} if editable else {}}
        metadata["direct_url.json"] = json.dumps(url)
    all_files = {**files, **{f"{name}-1.0.dist-info/{part}": text for part, text in metadata.items()}}
    record = f"{name}-1.0.dist-info/RECORD"
    all_files[record] = "".join(f"{path},,\n" for path in [*all_files, record])
    for path, text in all_files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text, encoding="utf-8")
    return site
