"""Records as plain values and back, by the types of their fields.

Plain values are what JSON and execnet hold: dictionaries, lists, text and numbers, of no subclass. A record of another
form in files, such as a price that is written as text, names that member with what writes and what reads it.
"""

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Self, TypeVar

import msgspec
from msgspec import Struct

from pytest_mlpatterns.records.json_text import may_be_unusual

_T = TypeVar("_T")
Count = Annotated[int, msgspec.Meta(ge=0)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
InFiles = Mapping[str, tuple[Callable[[Any], object], Callable[[Any], object]]]


def plain(value: object) -> Any:
    """A value as plain values, to any depth; a path is text, and numbers of numpy become Python's."""
    return msgspec.to_builtins(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "dtype"):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no plain value")


class Record(Struct, frozen=True):
    """A value that travels as the plain values of its fields, by their names.

    ``_in_files``: members that have another form there, by name: what writes each, and what reads it.
    """

    _in_files: ClassVar[InFiles] = {}

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        found: dict[str, Any] = plain(self)
        return found | {name: write(getattr(self, name)) for name, (write, _) in self._in_files.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`, also after a trip through JSON or between processes.

        Absent members have their defaults, and members of other records are ignored.
        """
        try:
            members = {name: read(data[name]) for name, (_, read) in cls._in_files.items() if name in data}
            return msgspec.convert({**data, **members}, cls, str_keys=True, from_attributes=True)
        except msgspec.ValidationError as error:
            raise ValueError(f"{cls.__name__}: {error}") from None


def checked(value: object, kind: type[_T], text: str) -> _T:
    """What a file holds, as one of a type."""
    found = None
    try:
        found = msgspec.convert(value, kind, str_keys=True)
        if not may_be_unusual(text):
            return found
    except msgspec.ValidationError as error:
        refused = str(error)
    from pytest_mlpatterns.records.faults import fault

    if (why := fault(value, kind)) or found is None:
        raise ValueError(why or refused)
    return found


def as_written(record: type, /, *parts: type, may_have_more: bool = False, **members: Any) -> Any:
    """The type of a record in files, with some members of other types.

    ``members``: type by name; None for one that no file has. Each of them is in every file, unless it is a tuple of the
    type and the default.
    """
    found: dict[str, Any] = {}
    for one in (record, *parts):
        for field in msgspec.structs.fields(one):
            has_factory = field.default_factory is not msgspec.NODEFAULT
            default = msgspec.field(default_factory=field.default_factory) if has_factory else field.default
            found[field.name] = (field.type,) if field.required else (field.type, default)
    found |= {name: of if isinstance(of, tuple) else (of,) for name, of in members.items()}
    fields = [(name, *of) for name, of in found.items() if of != (None,)]
    documents = {"__doc__": "\n".join(one.__doc__ or "" for one in (record, *parts))}
    return msgspec.defstruct(
        record.__name__, fields, kw_only=True, forbid_unknown_fields=not may_have_more, namespace=documents
    )
