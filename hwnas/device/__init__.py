"""Who can time or count a file: devices, the transports to them, and the runner that is sent there."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
