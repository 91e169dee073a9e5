"""A run's folder: its settings, its study, its trials, its winners."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
