"""The system's locks on files. Windows has none of these: there hwnas is imported, and what would lock is refused."""

from hwnas.errors import InputError

try:
    import fcntl as fcntl
except ImportError:  # Windows

    class _NoLocks:
        """In the place of fcntl: raises InputError for whatever is asked of it."""

        def __getattr__(self, name: str) -> object:
            raise InputError(
                f"what hwnas writes must be locked by fcntl; this system has none of it ({name}), as on Windows. Type "
                "the same command in WSL"
            )

    fcntl = _NoLocks()  # type: ignore[assignment]
