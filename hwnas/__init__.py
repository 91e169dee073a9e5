"""hwnas finds, trains and ships the most accurate image network that a device can run in a given time.

Every verb of the command line is a function here, with the same options as keyword arguments; `hwnas tables show` is
`tables_show`. What they return, and the errors that they raise, are here, too: see __init__.pyi.
"""


def __getattr__(name: str) -> object:
    """Load lazy_loader once something is asked for: the command line first sees to it that Ctrl-C is no traceback."""
    import lazy_loader

    loaded, names, listed = lazy_loader.attach_stub(__name__, __file__)
    globals().update(__getattr__=loaded, __dir__=names, __all__=listed)
    return listed if name == "__all__" else loaded(name)


def __dir__() -> list[str]:
    return list(__getattr__("__all__"))  # type: ignore[call-overload]
