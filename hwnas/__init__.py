"""hwnas finds, trains and ships the most accurate image network that a device can run in a given time.

Every verb of the command line is a function here, with the same options as keyword arguments; `hwnas tables show` is
`tables_show`.
"""

from hwnas.bench import bench
from hwnas.describe import describe
from hwnas.devices import devices, devices_add, devices_setup
from hwnas.export import export
from hwnas.pipeline import run
from hwnas.profile import profile
from hwnas.report import report
from hwnas.search import search
from hwnas.table_verbs import tables_check, tables_diff, tables_merge, tables_show
from hwnas.train import train
from hwnas.verify import verify

__all__ = [
    "bench",
    "describe",
    "devices",
    "devices_add",
    "devices_setup",
    "export",
    "profile",
    "report",
    "run",
    "search",
    "tables_check",
    "tables_diff",
    "tables_merge",
    "tables_show",
    "train",
    "verify",
]
