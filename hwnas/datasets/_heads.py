"""What is known of each image file before it is decoded: its head, whether its end is there, a hash of its content.

The hash is of the size and of 16 KiB at the beginning, the middle and the end, so of the whole of small files: two
photos that differ differ there, and they are hashed while their heads are read, which has to be done anyway. Of folders
of 1,000 files and more this is kept in the user's cache, by each file's size, inode and times: such a file is opened,
and looked at as a whole, once.
"""

import hashlib
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from importlib import metadata
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from hwnas.datasets._reader import read_square
from hwnas.errors import DataError, InputError
from hwnas.support import cache, read_json, write_json

In = TypeVar("In")
Out = TypeVar("Out")

_THREADS = min(8, os.cpu_count() or 1)
_PIECE = 16 * 1024  # bytes
_SMALL = 64  # pixels of a side: a JPEG is decoded faster to few, and to its end all the same
_KEPT_FROM = 1000  # files
_VERSION = 1  # of the cache's files
_GREY_MODES = ("1", "L", "LA", "La", "I")  # and I;16, ...
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}  # of formats that have one: in the last piece
BROKEN = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class BrokenImageError(DataError):
    """An image file cannot be read."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a file says before it is decoded; it is `whole` once that was done."""

    shorter_side: int = 0  # pixels
    grey: bool = False  # by its mode
    deep: bool = False  # of more than 8 bits, and grey
    cut: bool = False  # deep, and in colour: Pillow keeps the upper 8 bits
    transparent: bool = False  # or may be
    digest: str = ""
    broken: str = ""  # why it cannot be read
    whole: bool = False


Stamp = tuple[int, ...]
_known: dict[str, tuple[Stamp, Head]] = {}  # by path, of this process
_lock = threading.Lock()


def in_threads(function: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
    """Return what a function makes of each item."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


def heads_of(folder: Path, paths: Sequence[Path]) -> list[Head]:
    """Return the heads of a folder's image files, broken ones among them."""
    keeps = len(paths) >= _KEPT_FROM
    if keeps:
        _recall(folder)
    before = len(_known)
    heads = in_threads(_head, map(str, paths))
    if keeps and len(_known) > before:
        keep(folder, paths)
    return heads


def mark_whole(paths: Iterable[Path]) -> None:
    """Note of files that they were decoded to their end."""
    with _lock:
        for path in map(str, paths):
            if path in _known:
                stamp, head = _known[path]
                _known[path] = stamp, replace(head, whole=True)


def is_whole(path: Path) -> bool:
    """Say whether a file, as it is, was decoded to its end before."""
    stamp, head = _known.get(str(path), ((), Head()))
    return head.whole and stamp == _stamp(path.stat())


def keep(folder: Path, paths: Sequence[Path]) -> None:
    """Keep in the user's cache what is known of a folder's files, where they are many; it may be read-only."""
    if len(paths) < _KEPT_FROM:
        return
    known = {path: _known[str(path)] for path in paths if str(path) in _known}
    entries = {
        str(path.relative_to(folder)): [stamp, *(getattr(head, field.name) for field in fields(Head))]
        for path, (stamp, head) in known.items()
    }
    with suppress(OSError, UnicodeEncodeError, InputError):  # InputError: there is no home
        write_json(_cache_of(folder), {"version": _VERSION, "pillow": _pillow(), "files": entries}, indent=None)


def _recall(folder: Path) -> None:
    """Take over what the cache has of a folder's files; one that cannot be read is as none."""
    try:
        content = read_json(_cache_of(folder), what="what is known of image files")
        if (content["version"], content["pillow"]) != (_VERSION, _pillow()):
            return
        files = content["files"].items()
        kept = {str(folder / name): (tuple(stamp), Head(*values)) for name, (stamp, *values) in files}
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return
    with _lock:
        _known.update({path: entry for path, entry in kept.items() if path not in _known})


def _cache_of(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    return cache() / "photos" / f"{name}.json"


def _pillow() -> str:
    return metadata.version("pillow")


def _head(path: str) -> Head:
    try:
        stamp = _stamp(os.stat(path))  # noqa: PTH116  (of 100,000 files)
        known = _known.get(path)
        if known is None or known[0] != stamp:
            known = stamp, _looked_at(path)
            _known[path] = known
        return known[1]
    except OSError as error:  # it is gone, or may not be read
        return Head(broken=why(error))


def _looked_at(path: str) -> Head:
    with open(path, "rb") as file:  # noqa: PTH123  (of 100,000 files)
        digest, last = _hashed(file)
        file.seek(0)
        try:
            with Image.open(file) as image:
                head = _of_image(image, digest)
                is_cut_off = _ENDS.get(image.format or "", b"") not in last
        except BROKEN as error:
            return Head(digest=digest, broken=why(error))
    if is_cut_off:  # or has something behind its end
        broken = whole_or_why(path)
        return replace(head, broken=broken, whole=not broken)
    return head


def _hashed(file: BufferedReader) -> tuple[str, bytes]:
    """Return a hash of a file's content, and its last piece."""
    size = file.seek(0, os.SEEK_END)
    places = {max(0, min(place, size - _PIECE)) for place in (0, (size - _PIECE) // 2, size)}
    hashed, piece = hashlib.sha256(str(size).encode()), b""
    for place in sorted(places):
        file.seek(place)
        piece = file.read(_PIECE)
        hashed.update(piece)
    return hashed.hexdigest()[:32], piece


def _of_image(image: Image.Image, digest: str) -> Head:
    if image.mode == "F":
        raise ValueError("floating-point images are not supported")
    deep = image.mode.startswith("I")
    return Head(
        shorter_side=min(image.size),
        grey=image.mode in _GREY_MODES or deep,
        deep=deep,
        cut=not deep and "16" in str([tile[3] for tile in getattr(image, "tile", [])]),
        transparent=image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info,
        digest=digest,
    )


def whole_or_why(path: "str | Path") -> str:
    """Return why a file cannot be decoded to its end; nothing where it can."""
    try:
        read_square(path, _SMALL, 3, "white", 0, 65535)
    except BROKEN as error:
        return why(error)
    return ""


def why(error: Exception) -> str:
    """Return an error in words."""
    if isinstance(error, UnidentifiedImageError):
        return "it is of no kind that Pillow knows here"
    return str(error) or type(error).__name__


def broken_image(path: Path, reason: str) -> BrokenImageError:
    """Return the error for a file that cannot be read."""
    return BrokenImageError(
        f"{path} must be an image; it cannot be read: {reason} (--skip-broken leaves it out); remove it or replace it"
    )


def refuse_broken(broken: Sequence[tuple[Path, str]]) -> None:
    """Raise BrokenImageError with one list of all files that are broken, if some are."""
    if len(broken) == 1:
        raise broken_image(*broken[0])
    if broken:
        listed = "".join(f"\n  {path}: {reason}" for path, reason in broken)
        raise BrokenImageError(
            f"all images must be readable; {len(broken)} are broken, which --skip-broken leaves out; remove or replace "
            f"them:{listed}"
        )


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
