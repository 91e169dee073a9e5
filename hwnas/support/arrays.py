"""Arrays in NumPy's archives (.npz), as files of other people hold them: what a header promises is not believed."""

import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hwnas.errors import InputError, quoted
from hwnas.support.files import check_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BROKEN = (  # what zipfile, zlib and numpy raise of files that are none, or have been changed
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    SyntaxError,
    NotImplementedError,  # another compression
    RuntimeError,  # a member with a password
    RecursionError,
    OverflowError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def array_names(path: Path, *, what: str) -> list[str]:
    """Return the names of an archive's arrays; none is read. `what` names the file in errors.

    Raises InputError where it is missing or no archive.
    """
    check_file(path, what=what)
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except _BROKEN as error:
        raise InputError(f"{path} must be a NumPy archive (.npz); it is not: {quoted(error)}") from None


def read_array(path: Path, name: str, *, most_bytes: int | None = None) -> "NDArray[Any]":
    """Read one array of an archive; memory is taken for what the file holds, and not for what a header promises.

    Raises ValueError, in words, where there is none, or one of Python's objects, or more than `most_bytes`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                raise ValueError(
                    "it is a file of another kind" if name in archive.namelist() else f"{name} is not there"
                )
            member = archive.getinfo(f"{name}.npy")
            if most_bytes is not None and member.file_size > most_bytes:
                raise ValueError(f"it has {member.file_size:,} bytes, and may have {most_bytes:,}")
            with archive.open(member) as file:
                return _read(file, member.file_size)
    except _BROKEN as error:
        raise ValueError(str(error) or type(error).__name__) from None


def _read(file: IO[bytes], size: int) -> "NDArray[Any]":
    import numpy as np

    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"it is of version {version} of NumPy's format, and not of 1 or 2")
    shape, by_column, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python's objects, which are not read: they may run code")
    promised, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if promised != held or min(shape, default=1) < 0:
        raise ValueError(f"its header says {list(shape)} of {dtype}, {promised:,} bytes; it has {held:,}")
    content = bytearray(file.read())  # of what can be written to
    if len(content) != held:
        raise ValueError(f"it must have {held:,} bytes; it ends after {len(content):,}")
    return np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if by_column else "C")
