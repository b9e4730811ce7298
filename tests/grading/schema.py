"""Convert dataclasses to JSON and back, checking types and bounds.

Type annotations describe the data. ``Annotated[str, Bounds(2000)]`` adds bounds. The module
supports dataclasses, enums, str, int, float, bool, None, unions with None, lists, and dictionaries
with str keys. pydantic and msgspec do more, but they would add compiled dependencies on every
platform, also to the student edition.
"""

import math
import types
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

KEY = 200  # characters of a key
T = TypeVar("T")


@dataclass(frozen=True)
class Bounds:
    """Bounds of a number, or of the length of a text, list or dictionary."""

    most: float = math.inf
    least: float = 0

    def check(self, number: float, what: str, place: str) -> None:
        if not self.least <= number <= self.most:  # false for NaN, too
            raise ValueError(f"{place}: expected {what} {self.least:g} to {self.most:g}")


def encode(value: object) -> Any:
    """Convert a dataclass to objects that JSON can represent."""
    return asdict(cast(Any, value))


def decode(form: type[T], raw: object, place: str = "value") -> T:
    """Convert parsed JSON to an instance of ``form``.

    Parameters
    ----------
    form : type
        A dataclass, or another supported type.
    raw : object
        The result of ``json.loads``.
    place : str
        The name of the value in messages.

    Raises
    ------
    ValueError
        If types, names or bounds differ from the annotations.
    """
    return cast(T, _decode(form, raw, place))


def _decode(form: Any, raw: Any, place: str, bounds: Bounds | None = None) -> Any:
    origin, arguments = get_origin(form), get_args(form)
    if origin is Annotated:
        return _decode(arguments[0], raw, place, arguments[1])
    if origin in (Union, types.UnionType):
        if raw is None and type(None) in arguments:
            return None
        (form,) = (argument for argument in arguments if argument is not type(None))
        return _decode(form, raw, place, bounds)
    if is_dataclass(form):
        return _decode_fields(form, raw, place)
    if origin is list:
        _expect(isinstance(raw, list), "a list", raw, place)
        (bounds or Bounds()).check(len(raw), "a length of", place)
        return [_decode(arguments[0], item, f"{place}[{n}]") for n, item in enumerate(raw)]
    if origin is dict:
        _expect(isinstance(raw, dict), "an object", raw, place)
        (bounds or Bounds()).check(len(raw), "a length of", place)
        for key in raw:
            Bounds(KEY).check(len(key), "keys with a length of", place)
        return {key: _decode(arguments[1], item, f"{place}.{key}") for key, item in raw.items()}
    if isinstance(form, type) and issubclass(form, StrEnum):
        _expect(isinstance(raw, str) and raw in set(form), f"one of {list(form)}", raw, place)
        return form(raw)
    if form is float:
        _expect(type(raw) in (int, float), "a number", raw, place)
        (bounds or Bounds(least=-math.inf)).check(raw, "a number from", place)
        try:
            return float(raw)
        except OverflowError:
            raise ValueError(f"{place}: expected a number below 1.8e308") from None
    _expect(type(raw) is form, f"{form.__name__}", raw, place)
    if bounds is not None and form in (int, str):
        bounds.check(raw if form is int else len(raw), "a size of", place)
    return raw


def _decode_fields(form: Any, raw: Any, place: str) -> Any:
    _expect(isinstance(raw, dict), "an object", raw, place)
    forms = _forms(form)
    needed = {
        field.name
        for field in fields(form)
        if field.default is MISSING and field.default_factory is MISSING
    }
    if wrong := (set(raw) - set(forms)) | (needed - set(raw)):
        name = min(wrong)[:KEY]
        raise ValueError(f"{place}: {name!r} is {'missing' if name in needed else 'unknown'}")
    return form(**{name: _decode(forms[name], raw[name], f"{place}.{name}") for name in raw})


@cache
def _forms(form: type) -> dict[str, Any]:
    hints = get_type_hints(form, include_extras=True)
    return {field.name: hints[field.name] for field in fields(cast(Any, form))}


def _expect(condition: bool, wanted: str, raw: object, place: str) -> None:
    if not condition:
        raise ValueError(f"{place}: expected {wanted}, got {type(raw).__name__}")
