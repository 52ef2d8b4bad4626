"""From what the wire holds to a dataclass.

A decoder is made once for each class, from its annotations. Keys that a class does not know are passed over: a later daemon may have more.
A key that is missing is an error unless the field has a default; a value of another type always is.
"""

from __future__ import annotations

import dataclasses
import typing
from functools import lru_cache
from typing import Any, Callable, Dict, List, Type, TypeVar, Union

from .errors import ProtocolError

T = TypeVar("T")
Decoder = Callable[[Any], Any]


def _mismatch(expected: str, value: object) -> ProtocolError:
    return ProtocolError(f"the reply holds {str(value)[:100]!r} where {expected} is due")


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    raise _mismatch("an integer", value)


def _number(value: Any) -> float:
    if type(value) is float or type(value) is int:
        return float(value)
    raise _mismatch("a number", value)


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise _mismatch("a text", value)


def _truth(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise _mismatch("true or false", value)


_PLAIN: Dict[Any, Decoder] = {int: _integer, float: _number, str: _text, bool: _truth}


def decoder(hint: Any) -> Decoder:
    """The decoder of a type: a plain one, `Optional`, `List`, `Dict[str, …]`, `Any`, or a dataclass of those."""
    return _made(hint)


@lru_cache(maxsize=None)
def _made(hint: Any) -> Decoder:
    if hint in _PLAIN:
        return _PLAIN[hint]
    if hint is Any:
        return lambda value: value
    if dataclasses.is_dataclass(hint):
        return _record(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Union and len(arguments) == 2 and arguments[1] is type(None):
        some = decoder(arguments[0])
        return lambda value: None if value is None else some(value)
    if origin is list:
        one = decoder(arguments[0])

        def all_of(value: Any) -> List[Any]:
            if type(value) is not list:
                raise _mismatch("a list", value)
            return [one(item) for item in value]

        return all_of
    if origin is dict and arguments[0] is str:
        each = decoder(arguments[1])

        def map_of(value: Any) -> Dict[str, Any]:
            if type(value) is not dict:
                raise _mismatch("a map", value)
            return {str(key): each(item) for key, item in value.items()}

        return map_of
    raise TypeError(f"no decoder for {hint!r}")


def _record(cls: Any) -> Decoder:
    hints = typing.get_type_hints(cls)
    # Plain ones are recognised by their type alone: a call of a function for each would be most of the time that a small answer takes.
    plain, parts = [], []
    for field in dataclasses.fields(cls):
        hint, key = hints[field.name], field.metadata.get("wire", field.name)
        if hint in (int, str, bool) and field.default is dataclasses.MISSING:
            plain.append((field.name, key, hint))
        else:
            parts.append((field.name, key, decoder(hint), field.default))

    def record(value: Any) -> Any:
        if type(value) is not dict:
            raise _mismatch(f"a {cls.__name__}", value)
        # Not by __init__: that of a frozen dataclass sets each field by a call.
        made = object.__new__(cls)
        fields = made.__dict__
        try:
            for name, key, kind in plain:
                item = value[key]
                if type(item) is not kind:
                    _PLAIN[kind](item)  # raises
                fields[name] = item
            for name, key, decode, default in parts:
                if key in value or default is dataclasses.MISSING:
                    fields[name] = decode(value[key])
                else:
                    fields[name] = default
        except KeyError as error:
            raise ProtocolError(f"the reply holds a {cls.__name__} without {error}") from None
        return made

    return record


def decode(cls: Type[T], value: Any) -> T:
    """The value as this dataclass.

    Raises:
        ProtocolError: it has another form.
    """
    return typing.cast(T, decoder(cls)(value))
