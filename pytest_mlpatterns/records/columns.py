"""The columns of a record of resources: each is declared once, with its field.

The monitors read the columns that a record has, and the blocks of a paired launch merge them. So a new column is a
field, and an attribute of the same name where it is counted.
"""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import DataclassInstance

__all__ = ["Column", "Source", "columns_of", "counter", "level", "read_columns"]
_KEY = "column"
"""Key of the metadata of a field that is a column."""


class Source(Enum):
    """What a column is read from."""

    TREE = "the processes of the deployment"
    MACHINE = "the machine, whoever uses it"
    OTHER = "something else, by the code that makes the record"


class Column(Struct, frozen=True):
    """One column.

    Attributes:
        name: of the field, and of the attribute of the source.
        is_counter: whether it is cumulative, so that its growth counts; else it goes up and down, and its highest value
            counts.
    """

    name: str
    source: Source
    is_counter: bool


def counter(source: Source) -> dict[str, Any]:
    """The metadata of a field that is a cumulative column."""
    return {_KEY: (source, True)}


def level(source: Source) -> dict[str, Any]:
    """The metadata of a field that is a column which goes up and down."""
    return {_KEY: (source, False)}


def columns_of(record: DataclassInstance | type[DataclassInstance]) -> tuple[Column, ...]:
    """The columns of a record or of its class, in the order of its fields."""
    return tuple(Column(one.name, *one.metadata[_KEY]) for one in fields(record) if _KEY in one.metadata)


def read_columns(record: type[DataclassInstance], sources: Mapping[Source, object]) -> dict[str, int | None]:
    """The present values of the columns of some sources, by name; None for one that the system does not show."""
    return {one.name: getattr(sources[one.source], one.name) for one in columns_of(record) if one.source in sources}
