"""Projects that an installer can build without a network: they bring their own build backend."""

_BACKEND = '''
"""Builds a wheel of the modules in src, or one that leads there."""

import pathlib
import tomllib
import zipfile

HERE = pathlib.Path.cwd()

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    files = {str(file.relative_to("src")): file.read_text() for file in pathlib.Path("src").rglob("*.py")}
    return _wheel(wheel_directory, files)

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory, {"in_place.pth": str(HERE / "src")})

def _wheel(directory, files):
    project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    metadata = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    metadata += "".join(f"Requires-Dist: {one}\\n" for one in project.get("dependencies", ()))
    info = f"{name}-{version}.dist-info"
    files = files | {f"{info}/METADATA": metadata}
    files |= {f"{info}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
    record = f"{info}/RECORD"
    files |= {record: "".join(f"{path},,\\n" for path in [*files, record])}
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory, wheel), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel
'''


def buildable(name: str, modules: dict[str, str], *, below: str = "", version: str = "1") -> dict[str, str]:
    """The files of a project that uv can install, with modules by their path in ``src``.

    ``below`` is the folder of the project, which ends in a slash; empty for the top.
    """
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {
        "pyproject.toml": f'{build}[project]\nname = "{name}"\nversion = "{version}"\n',
        "backend.py": _BACKEND,
        **{f"src/{path}": text for path, text in modules.items()},
    }
    return {f"{below}{path}": text for path, text in files.items()}
