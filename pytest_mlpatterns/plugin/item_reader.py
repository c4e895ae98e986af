"""Reads what a perf test was asked to do, from its marker, its parameters and the options of the run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.errors import MissingExtraError, SettingError
from pytest_mlpatterns.plugin.perf_item import PerfItem
from pytest_mlpatterns.serving.engine import engine_named, require_ray
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.plugin.collection import Collection, MarkerReading

__all__ = ["ItemReader"]


class ItemReader:
    """Reads the settings of tests.

    Args:
        options: command-line values by option name.
        ini: ini values by option name.
        collection: knows the markers of each test.
    """

    def __init__(self, options: Mapping[str, object], ini: Mapping[str, object], collection: Collection) -> None:
        self._options = options
        self._ini = ini
        self._collection = collection

    def defaults(self) -> Settings:
        """The settings of a test without a marker.

        Raises:
            SettingError: an option that cannot be read.
        """
        return read_settings({}, self._options, self._ini)

    def read(self, item: pytest.Item) -> PerfItem:
        """Read one test; an error of its marker is part of the answer, since it fails that test alone."""
        try:
            return PerfItem(self._settings_of(item, self._collection.read_markers(item)))
        except MissingExtraError:  # ends the run: other tests would miss it too
            raise
        except SettingError as error:
            return PerfItem(self.defaults(), error)

    def read_deployment(self, arguments: Mapping[str, object], of_test: Settings) -> Settings:
        """The settings of a deployment without load.

        Args:
            arguments: of ``perf_deploy``, by name.
            of_test: settings of the test, or of the run, that count where an argument is not given.

        Raises:
            SettingError: an argument that cannot be read.
        """
        for name in ("pattern", "wire"):
            if isinstance(value := arguments[name], list | tuple):
                raise SettingError(
                    f"perf_deploy({name}={shown(value)}), expected one {name}; start one deployment after the other"
                )
        settings = read_settings(arguments, self._options, self._ini, caller="perf_deploy")
        return replace(
            settings,
            model=of_test.model if settings.model is None else settings.model,
            payload=of_test.payload if settings.payload is None else settings.payload,
            startup_timeout_ns=of_test.startup_timeout_ns,
            engine=of_test.engine,
            cpus=of_test.cpus if arguments["cpus"] is None else settings.cpus,
        )

    def _settings_of(self, item: pytest.Item, marker: MarkerReading) -> Settings:
        if marker.error is not None:
            raise marker.error
        params = getattr(getattr(item, "callspec", None), "params", {})
        members = {"pattern": params.get("_perf_pattern"), "wire": params.get("_perf_wire")}
        settings = read_settings(
            marker.arguments, self._options, self._ini, pattern=members["pattern"], wire=members["wire"]
        )
        engine_named(settings.engine, "perf(engine=...)")
        if settings.generators_on == "ray":
            require_ray('generators_on="ray"')
        names = getattr(item, "fixturenames", ())
        if "perf" in names or {"perf_deploy", "perf_deploy_session"}.isdisjoint(names):
            for name, member in members.items():
                if isinstance(marker.arguments.get(name), list | tuple) and member is None:
                    raise SettingError(
                        f"perf({name}={shown(marker.arguments[name])}) comes too late to make one test each; give the "
                        f"list to the marker of the function, class or module, or one {name} here"
                    )
        return settings

    def name_with_variable_id(self, item: pytest.Item) -> str | None:
        """The id without brackets of a test whose patterns come from the command line or the ini file; else None."""
        if "_perf_pattern" not in getattr(item, "fixturenames", ()):
            return None
        if self._collection.read_markers(item).arguments.get("pattern") is not None:
            return None
        return f"{item.parent.nodeid if item.parent else ''}::{getattr(item, 'originalname', item.name)}"
