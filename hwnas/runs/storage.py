"""A study's storage beside the run's folder: the URL of a database, whose password is in the environment alone.

--storage 'postgresql://user:$DB_PASSWORD@host/db' is kept as it is typed; the variable is looked up when the storage is
opened. So the password is in no file, no page and no command line, and workers have it with their environment.
"""

import os
import re
from typing import TYPE_CHECKING

from hwnas.errors import InputError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_SECRETS = ("password", "passwd", "pwd", "sslpassword", "secret", "token")  # among the parameters behind the `?`
_EXAMPLE = "'postgresql://user:$DB_PASSWORD@host/db', in single quotes"


def check_storage(storage: str | None) -> None:
    """Raise InputError, which does not show it, for a storage with a password in the open, and for what is no URL."""
    if storage is not None and _has_secret(_parsed(storage)):
        raise InputError(
            "--storage must name an environment variable in the place of its password; got a password in the open, "
            f"which would be kept in files. Type: export DB_PASSWORD=..., and --storage {_EXAMPLE}"
        )


def shown_storage(storage: str) -> str:
    """Return a storage as it may be read by anybody: of one with a password, as an older hwnas kept it, the kind."""
    url = _parsed(storage)
    return f"{url.drivername}://***" if _has_secret(url) else storage


def is_same_storage(one: str | None, other: str | None) -> bool:
    """Tell whether both are one database, whatever its password is, or where that is."""
    if one is None or other is None:
        return one is other
    return _parsed(one).set(password="") == _parsed(other).set(password="")


def opened_storage(storage: str) -> str:
    """Return the URL with its password; raises InputError where its variable is not set."""
    url = _parsed(storage)
    match = _VARIABLE.fullmatch(url.password or "")
    if match is None:
        return storage
    name = match[1] or match[2]
    if name not in os.environ:
        raise InputError(
            f"the password of {storage} must be in the environment; got no {name}. Type: export {name}=..., and the "
            "same command again"
        )
    return url.set(password=os.environ[name]).render_as_string(hide_password=False)


def without_password(text: str, opened: str) -> str:
    """Return what was said of an opened storage without its password."""
    password = _parsed(opened).password
    for secret in (opened, str(password)) if password else ():
        text = text.replace(secret, "***")
    return text


def _parsed(storage: str) -> "URL":
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(storage)
    except (ArgumentError, ValueError):  # whose words may have a part of the password
        raise InputError(
            f"--storage must be a URL that Optuna knows, such as sqlite:///x.db or {_EXAMPLE}; got something else"
        ) from None


def _has_secret(url: "URL") -> bool:
    password, host = str(url.password or ""), url.host or ""
    if (password and not _VARIABLE.fullmatch(password)) or "@" in host:  # an @ in a password ends it too early
        return True
    values = " ".join(map(str, url.query.values())).lower()
    return any(name.lower() in _SECRETS for name in url.query) or any(f"{name}=" in values for name in _SECRETS)
