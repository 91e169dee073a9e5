"""From samples to what a network will take: measurements, tables, predictions, caps."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
