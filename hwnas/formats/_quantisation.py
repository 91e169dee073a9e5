"""What 8-bit numbers stand for, in TFLite's int8 and ONNX's uint8 alike."""

from typing import NamedTuple


class Quantisation(NamedTuple):
    """A tensor's 8-bit numbers q stand for step x (q - zero_point)."""

    step: float
    zero_point: int

    @classmethod
    def of(cls, low: float, high: float, *, lowest: int) -> "Quantisation":
        """Return the one whose 256 numbers, from `lowest` on, span a range and 0, which must be exact."""
        import numpy as np

        low, high = min(low, 0.0), max(high, 0.0)
        step = float(np.float32((high - low) / 255))
        if step < np.finfo(np.float32).tiny:
            return cls(1.0, lowest)
        return cls(step, lowest + round(-low / step))
