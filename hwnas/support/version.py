"""The version of hwnas, as it is installed."""

from importlib.metadata import version

__version__ = version("hwnas")
