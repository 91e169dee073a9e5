"""Where the user's own devices and latency tables are."""

import os
from pathlib import Path


def root() -> Path:
    """Return the folder that has the user's devices/ and latency_tables/: HWNAS_ROOT, or else the current one."""
    return Path(os.environ.get("HWNAS_ROOT", "")).expanduser().absolute()
