"""What people look at: the report, and pictures of fronts, cells and networks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
