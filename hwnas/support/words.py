"""Words of what is said and printed."""


def counted(number: float, noun: str) -> str:
    """Return so many of a noun whose plural has an s: "1 network", "2 networks", "0.3 epochs"."""
    digits = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{digits} {noun}{'s' * (number != 1)}"
