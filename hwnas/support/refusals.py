"""What the system refuses, such as a file on a full disk, in words: which file, why, and what to do about it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from hwnas.errors import InputError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PERMISSION = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_HANDLES = {errno.EMFILE, errno.ENFILE}
_NO_MEMORY = {errno.ENOMEM, errno.EAGAIN}


@contextmanager
def system_errors_in_words() -> Iterator[None]:
    """Turn what the system refuses into an InputError."""
    try:
        yield
    except (BrokenPipeError, ConnectionError):  # nothing that the user could mend
        raise
    except OSError as error:
        raise InputError(f"{refusal(error)}, and type the same command again") from error


def refusal(error: OSError) -> str:
    """Return what the system refused, why, and what to do, without a full stop."""
    name = error.filename
    where = f"{os.path.abspath(os.fsdecode(name))}: " if isinstance(name, (str, bytes)) else ""  # noqa: PTH100
    return f"the system refused a file: {where}{error.strerror or error}. {remedy(error)}"


def is_scarcity(error: OSError) -> bool:
    """Tell whether the system has too little of something, whatever was asked for."""
    return error.errno in _NO_ROOM | _NO_HANDLES | _NO_MEMORY


def remedy(error: OSError) -> str:
    """Return what to do about what the system refused."""
    if error.errno in _NO_ROOM:
        return "Make room"
    if error.errno in _NO_PERMISSION:
        return "Give permission to write there, or name another folder"
    if error.errno in _NO_HANDLES:
        return "Let more files be open at once, as by `ulimit -n 1024`"
    if error.errno in _NO_MEMORY:
        return "End other programs"
    return "Make room or give permission"
