"""The constructors' arguments: what kinds there are, checked and brought into one form."""

import argparse
import math
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import numpy as np
import torch

from mflib.sampling import Seed, seed_of


def _number(value: Any) -> float:
    """``value`` as a float, NaN if it is not a number."""
    try:
        return math.nan if isinstance(value, str | bool) else float(value)
    except (TypeError, ValueError):
        return math.nan


def size(name: str, value: Any) -> int:
    """``value`` as an int; ValueError unless it is a whole number of at least 1."""
    number = _number(value)
    if not (number >= 1 and number.is_integer()):
        raise ValueError(f"expected a whole number of at least 1 for {name}, got {value!r}")
    return int(number)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"expected True or False for {name}, got {value!r}")
    return bool(value)


def _positive(name: str, value: Any) -> float:
    number = _number(value)
    if not 0 < number < math.inf:
        raise ValueError(f"expected a finite number above 0 for {name}, got {value!r}")
    return number


def _not_negative(name: str, value: Any) -> float:
    number = _number(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"expected a finite number of at least 0 for {name}, got {value!r}")
    return number


def _random_state(name: str, value: Any) -> Any:
    if value is None or isinstance(value, np.random.Generator | np.random.RandomState):
        return value  # a seed is drawn from it by each fit
    return seed_of(value)


def _dtype(name: str, value: Any) -> torch.dtype:
    dtype = value
    if value is not None and not isinstance(value, torch.dtype):
        try:
            dtype = getattr(torch, np.dtype(value).name, None)
        except TypeError:
            dtype = None
    if dtype not in (torch.float32, torch.float64):
        reason = "half precision loses the small steps of training"
        raise ValueError(f"expected float32 or float64 for {name}, got {value!r}; {reason}")
    return dtype


def _device(name: str, value: Any) -> str:
    try:
        return str(torch.empty(0, device=value).device)
    except (RuntimeError, TypeError, AssertionError) as error:  # torch raises all three
        reason = str(error).partition("\n")[0]
        expected = "a device that torch has here, such as 'cpu',"
        raise ValueError(f"expected {expected} for {name}, got {value!r}: {reason}") from error


Size = Annotated[int, size]
Flag = Annotated[bool, _flag]
Positive = Annotated[float, _positive]
NotNegative = Annotated[float, _not_negative]
RandomState = Annotated[Seed, _random_state]
Dtype = Annotated[torch.dtype, _dtype]
Device = Annotated[str, _device]


def normalise(model: object) -> None:
    """Bring the attributes of ``model`` that are annotated with a kind of this file into its form.

    ``factors=64.0`` becomes 64, ``dtype=np.float32`` torch.float32, numpy's numbers Python's.
    ValueError: one of them has a value that its kind does not admit.
    """
    for name, hint in get_type_hints(type(model), include_extras=True).items():
        for kind in getattr(hint, "__metadata__", ()):
            setattr(model, name, kind(name, getattr(model, name)))


def add_options(parser: argparse.ArgumentParser, model: type) -> None:
    """An option for each argument of the constructor of ``model``, a dataclass: --cg_steps 3."""
    for field in fields(model):
        kind = type(field.default)
        how: dict[str, Any] = {"type": kind if kind in (int, float) else str}
        if kind is bool:
            how = {"action": argparse.BooleanOptionalAction}
        parser.add_argument(f"--{field.name}", default=field.default, **how)
