"""A microcontroller, as far as this machine can tell: TensorFlow Lite Micro runs the files here, in a child process.

Its planner, its resolver and its reference kernels are those that run on the board, so what it refuses, the arena that
it needs and what it computes are known here; pointers of 64 bits make that arena a little larger than the board's. Time
means nothing. The board's memory is the section [board] of devices/NAME.toml.
"""

from hwnas.device.transports.local import Transport as Transport
from hwnas.device.transports.local import starts as starts

EMULATED = True
KERNELS = "micro"
SERVES = (
    "check exported files on it and to state the arena that they need. Search under --max-mult-adds on another device, "
    "and then check what is exported"
)
