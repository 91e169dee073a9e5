"""Words of what is said and printed."""


def counted(number: float, noun: str) -> str:
    """Return so many of a noun whose plural has an s: "1 network", "2 networks", "0.3 epochs"."""
    digits = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{digits} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Return a time in words, to two digits or so."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.0f} s"
