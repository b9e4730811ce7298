"""Dataclasses are converted to JSON and back; malformed JSON is refused with the place."""

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

import pytest

from grading.schema import Bounds, decode, encode


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    name: Annotated[str, Bounds(5)]
    colour: Colour | None = None


@dataclass(frozen=True)
class Outer:
    number: Annotated[float, Bounds(10)]
    inner: list[Inner] = field(default_factory=list)
    by_key: Annotated[dict[str, int], Bounds(2)] = field(default_factory=dict)
    free: float = 0.0


def test_decode_inverts_encode():
    outer = Outer(1.5, [Inner("a", Colour.RED), Inner("b")], {"x": -1})
    raw = json.loads(json.dumps(encode(outer)))
    assert decode(Outer, raw) == outer
    assert decode(Outer, {"number": 2}) == Outer(2.0), "fields with defaults may be missing"
    assert isinstance(decode(Outer, raw).inner[0].colour, Colour)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "outer: expected an object, got list"),
        ({}, "outer: 'number' is missing"),
        ({"number": 1, "more": 1}, "outer: 'more' is unknown"),
        ({"number": "1"}, r"outer\.number: expected a number, got str"),
        ({"number": True}, r"outer\.number: expected a number, got bool"),
        ({"number": 11}, r"outer\.number: expected a number from 0 to 10"),
        ({"number": 1, "free": 10**400}, r"outer\.free: expected a number below"),
        ({"number": float("nan")}, r"outer\.number: expected a number from 0 to 10"),
        ({"number": 1, "inner": {}}, r"outer\.inner: expected a list, got dict"),
        ({"number": 1, "inner": [{"name": "x" * 6}]}, r"outer\.inner\[0\]\.name: expected a size"),
        ({"number": 1, "inner": [{"name": "x", "colour": "blue"}]}, r"colour: expected one of"),
        ({"number": 1, "inner": [{"name": "x", "colour": []}]}, r"colour: expected one of"),
        ({"number": 1, "by_key": {"a": 1, "b": 1, "c": 1}}, r"by_key: expected a length of 0 to 2"),
        ({"number": 1, "by_key": {"a": 1.0}}, r"by_key\.a: expected int, got float"),
        ({"number": 1, "by_key": {"a" * 201: 1}}, r"by_key: expected keys with a length of"),
    ],
)
def test_decode_refuses_other_forms_and_names_the_place(raw, message):
    with pytest.raises(ValueError, match=message):
        decode(Outer, raw, "outer")
