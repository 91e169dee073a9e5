"""hwnas finds, trains and ships the most accurate image network that a device can run in a given time.

Every verb of the command line is a function here, with the same options as keyword arguments; `hwnas tables show` is
`tables_show`. What they return, and the errors that they raise, are here, too: see __init__.pyi.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
