"""What `--json` prints: any result of a verb as JSON, of which a network is what `Architecture.from_json` reads."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel


def encoded(result: object) -> str:
    """Return a result as one line of JSON; numbers that are not finite are null."""
    return json.dumps(_plain(result), allow_nan=False)


def _plain(value: Any) -> Any:
    """Return a value as what JSON has; what has a `to_json`, such as an architecture, is what that returns."""
    if hasattr(value, "to_json"):
        return _plain(value.to_json())
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # of numpy, which need not be there
        return _plain(value.tolist())
    return os.fspath(value) if isinstance(value, os.PathLike) else value
