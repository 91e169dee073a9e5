"""Ways to damage what hwnas reads: values of JSON and TOML, text, bytes, arrays. All of them take a seeded `Random`."""

import io
import json
import math
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

MOST = 2**16  # characters that are not damaged further
DEPTHS = (20, 300, 3_000, 100_000)  # of nested lists
Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Raw:
    """Text that stands in a file as it is, such as a number that Python would not write."""

    text: str


class Fields(list[tuple[str, Any]]):
    """An object's fields, of which two may have one name."""


def odd_value(random: Random) -> Any:
    """Return a value that is hardly ever meant."""
    depth = random.choice(DEPTHS)
    return random.choice(
        [
            None, True, False, "", "x", "0", "\x00\x1b[31m", "ab" * 40_000, "../../x", "Größe", Raw('"\\ud800"'),
            0, 1, -1, 2, 1000, 2**31, 2**32, 2**63, 10**8, 10**30, Raw("1" + "0" * 5000), Raw("-0"),
            0.5, -0.5, 1e-320, 1e308, Raw("1e999"), Raw("NaN"), Raw("-Infinity"), Raw("nan"), Raw("inf"),
            [], [None], [[]], Fields(), Fields([("a", 1)]), [1] * 3000, ["a", 1, None],
            Raw("[" * depth + "]" * depth), Raw('{"a":' * depth + "1" + "}" * depth),
        ]
    )  # fmt: skip


def changed_value(random: Random, value: Any) -> Any:
    """Return a value in the place of another: one that is alike, or an odd one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or random.random() < 0.5:
        return [value] * 2 if random.random() < 0.1 else odd_value(random)
    return random.choice([-value, value + 1, value - 1, value * 1000, value * 10**9, value + 0.5, str(value), [value]])


def with_damage(random: Random, value: Any) -> Any:
    """Return a tree of values with one of them changed, left out, renamed or doubled."""
    if isinstance(value, dict):
        value = Fields(value.items())
    if not isinstance(value, list) or not value or random.random() < 0.1:
        return changed_value(random, value)
    at = random.randrange(len(value))
    match random.randrange(10):
        case 0:
            return type(value)([*value[:at], *value[at + 1 :]])
        case 1:
            return type(value)([*value, *[value[at]] * random.choice([1, 1, 2000])])
        case 2 if isinstance(value, Fields):
            renamed = (random.choice(["", "x", "Größe", value[at - 1][0], value[at][0] * 1000]), value[at][1])
            return Fields([*value[:at], renamed, *value[at + 1 :]])
    part = value[at]
    inner = (part[0], with_damage(random, part[1])) if isinstance(value, Fields) else with_damage(random, part)
    return type(value)([*value[:at], inner, *value[at + 1 :]])


def json_text(value: Any) -> str:
    """Write a tree of values as JSON."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        value = Fields(value.items())
    if isinstance(value, Fields):
        return "{" + ", ".join(f"{json.dumps(name)}: {json_text(part)}" for name, part in value) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(json_text, value)) + "]"
    return json.dumps(value)


def toml_text(value: Any) -> str:
    """Write a tree of values as TOML, objects within it in one line."""
    fields = Fields(value.items()) if isinstance(value, dict) else value
    if not isinstance(fields, Fields):
        return f"all = {_toml(value)}\n"
    return "".join(f"{_key(name)} = {_toml(part)}\n" for name, part in fields)


def _key(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        value = Fields(value.items())
    if isinstance(value, Fields):
        return "{ " + ", ".join(f"{_key(name)} = {_toml(part)}" for name, part in value) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return '""' if value is None else json_text(value)


def damaged_tree(random: Random, value: Any, write: Callable[[Any], str]) -> bytes:
    """Return a file of a tree of values, damaged in its values or its text."""
    if random.random() < 0.7:
        text = write(value := with_damage(random, value))
        for _ in range(random.choice([0, 0, 0, 1, 2])):
            if len(text) > MOST:  # a part that stands there thousands of times is not doubled again
                break
            text = write(value := with_damage(random, value))
        return text.encode() if random.random() < 0.9 else damaged_text(random, text)
    return damaged_text(random, write(value))


def damaged_text(random: Random, text: str) -> bytes:
    """Return a file of a text, damaged in its lines, its encoding or its bytes."""
    lines = text.splitlines(keepends=True) or [""]
    at = random.randrange(len(lines))
    match random.randrange(9):
        case 0:
            lines = [*lines[:at], *lines[at + 1 :]]
        case 1:
            lines = [*lines[: at + 1], *lines[at : at + 1] * random.choice([1, 1, 500]), *lines[at + 1 :]]
        case 2:
            other = random.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            return random.choice([text, text + "é"]).encode(random.choice(["utf-16", "utf-32", "utf-8-sig"]))
        case 4:
            lines[at] = random.choice(["\x00", "é".encode("latin-1").decode("latin-1"), "\r\n", "\u2028"]) + lines[at]
            return "".join(lines).encode("latin-1", "replace")
        case 5:
            lines[at] = lines[at].replace("1", random.choice(["9" * 400, "-1", "1e400", "x"]))
        case _:
            return damaged_bytes(random, text.encode())
    return "".join(lines).encode()


def damaged_bytes(random: Random, content: bytes) -> bytes:
    """Return a file that is cut, or has bytes that are others, more or fewer."""
    at = random.randrange(len(content) + 1)
    length = random.choice([1, 1, 4, 100, 5000])
    match random.randrange(8):
        case 0:
            return content[:at]
        case 1:
            return content[at:]
        case 2:
            return content[:at] + random.randbytes(length) + content[at:]
        case 3:
            return content[:at] + content[at + length :]
        case 4:
            return content[:at] + content[at : at + length] + content[at:]
        case 5:
            return content[:at] + bytes(length) + content[at + length :]
        case 6:
            return random.choice([b"", b"\n", b" " * 1000, random.randbytes(200), content * 3])
    flipped = bytearray(content)
    for _ in range(random.choice([1, 3, 20]) if content else 0):
        flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
    return bytes(flipped)


SHAPES = (
    "()",
    "(0,)",
    "(3,)",
    "(-1, 4)",
    f"({2**43},)",
    f"({2**20}, {2**26})",
    f"({2**62}, 8)",
    "(2**3,)",
    "3",
    "('a',)",
)
DTYPES = (
    "|O",
    "<f8",
    "<i8",
    "|u1",
    "|b1",
    "<U9",
    "|S4",
    "<c16",
    "<M8[D]",
    "V7",
    "<f2",
    "x",
    "[('a', '<i4')]",
    "<i99999999",
)


def npy(array: np.ndarray, random: Random | None = None) -> bytes:
    """Return an array's file; with `random` its header says something else of it, or it is another one."""
    file = io.BytesIO()
    if random and random.random() < 0.5:
        array = _other_array(array, random)
    np.save(file, array, allow_pickle=True)
    if not random or random.random() < 0.4:
        return file.getvalue()
    content = file.getvalue()
    length = struct.unpack("<H", content[8:10])[0]
    fields = {"descr": repr(np.lib.format.dtype_to_descr(array.dtype)), "fortran_order": "False"}
    fields["shape"] = str(array.shape)
    name = random.choice(list(fields))
    fields[name] = random.choice({"descr": tuple(map(repr, DTYPES)), "shape": SHAPES}.get(name, ("1", "None", "[")))
    header = "{" + ", ".join(f"'{key}': {value}" for key, value in fields.items()) + ", }"
    padded = header.encode().ljust(length - 1) + b"\n"
    return content[:8] + struct.pack("<H", len(padded)) + padded + content[10 + length :]


def _other_array(array: np.ndarray, random: Random) -> np.ndarray:
    with np.errstate(all="ignore"):
        others: Sequence[Callable[[], np.ndarray]] = [
            lambda: array[: len(array) // 2],
            lambda: array[:0],
            lambda: array[..., None],
            lambda: array.reshape(-1),
            lambda: array.astype(np.float64) * math.nan,
            lambda: array.astype(np.float32) * 1e30,
            lambda: array.astype(np.int64) - 3,
            lambda: array.astype(np.int64) * 10**12,
            lambda: array.astype(np.uint64) + np.uint64(2**63),
            lambda: array.astype("U5"),
            lambda: array.astype(object),
            lambda: array.astype(bool),
            lambda: array.astype(complex),
            lambda: np.array(3),
            lambda: np.zeros((2, 0, 3), array.dtype),
            lambda: np.zeros((1, 5000, 3), array.dtype),
        ]
        return random.choice(others)()


def damaged_npz(random: Random, arrays: dict[str, np.ndarray]) -> bytes:
    """Return an archive of arrays of which one is another one, is no array or has another name, or with other bytes."""
    if random.random() < 0.3:
        return damaged_bytes(random, npz({name: npy(array) for name, array in arrays.items()}))
    chosen = random.choice(list(arrays))
    members = {name: npy(array, random if name == chosen else None) for name, array in arrays.items()}
    match random.randrange(6):
        case 0:
            members[chosen] = damaged_bytes(random, members[chosen])
        case 1 if random.random() < 0.5:
            members[random.choice(["", "x", "../x", *arrays])] = members.pop(chosen)
        case 2 if random.random() < 0.5:
            members[chosen] = random.choice([b"", b"PK\x03\x04", b"\x93NUMPY", b"\x80\x04.", random.randbytes(99)])
    return npz(members)


def npz(members: dict[str, bytes]) -> bytes:
    """Return an archive of such files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()
