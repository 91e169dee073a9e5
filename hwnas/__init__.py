"""hwnas finds, trains and ships the most accurate image network that a device can run in a given time.

Every verb of the command line is a function here, with the same options as keyword arguments.
"""

from hwnas.describe import describe
from hwnas.export import export
from hwnas.pipeline import run
from hwnas.profile import profile
from hwnas.report import report
from hwnas.search import search
from hwnas.train import train

__all__ = ["describe", "export", "profile", "report", "run", "search", "train"]
