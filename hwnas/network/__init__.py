"""What a network is: cells, operations, scales, and the one walk from an architecture to a graph of layers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
