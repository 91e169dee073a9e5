"""How a network is trained, fine-tuned for int8 and brought to weights that files hold."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
