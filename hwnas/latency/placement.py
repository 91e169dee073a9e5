"""Where a model ran: on which processor, and how much of it its delegate took. A part of a measurement's record.

Of a figure that a vendor's tool estimates it says so, and where the tool puts the model.
"""

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from hwnas.device import Accelerator
from hwnas.errors import printable
from hwnas.support import Record

_Count = Annotated[int, Field(strict=True, ge=0, lt=2**62)]
_Word = Annotated[str, Field(max_length=200), AfterValidator(printable)]


class Placement(Record):
    """What a runtime says of where it ran a model; None for what it does not say.

    A delegate computes operators in the place of the runtime's own kernels: XNNPACK on the CPU, GPU, NNAPI on an NPU.
    What it does not take runs on the CPU.
    """

    model_config = ConfigDict(extra="ignore")  # it may come from a device, which is not trusted

    processor: Accelerator
    whole: Annotated[bool, Field(strict=True)]  # all operators ran on it, and of those of a delegate all by that
    delegate: _Word = ""  # empty for none
    operators: _Count | None = None  # that the delegate took,
    of: _Count | None = None  # of so many
    partitions: _Count | None = None  # that the graph was cut into: the delegate's and the others
    flags: Annotated[tuple[_Word, ...], Field(max_length=20)] = ()  # of a benchmark tool, those that it consumed
    estimated_by: _Word = ""  # a tool with its version, as in Vela 5.2.0: nothing was run; empty where it was

    @model_validator(mode="after")
    def _agrees(self) -> "Placement":
        if None not in (self.operators, self.of) and self.whole != (self.operators == self.of):
            raise ValueError(f"{self.operators} of {self.of} operators are {'not ' * self.whole}the whole")
        return self

    @property
    def where(self) -> str:
        """The processor and, where it is not its own, the delegate, as in `on the CPU, by XNNPACK`."""
        by = "" if self.delegate.lower() in ("", self.processor) else f", by {self.delegate}"
        return f"on the {self.processor.upper()}{by}"

    def __str__(self) -> str:
        taken = f"{'some' if self.operators is None else self.operators}{f' of {self.of}' if self.of else ''}"
        if self.whole:
            return f"{self.where}: all {f'{self.of} ' if self.of else ''}operators"
        cut = f", in {self.partitions} partitions" if (self.partitions or 0) > 1 else ""
        return f"{self.where}: {taken} operators{cut}"


def how(estimated_by: str) -> str:
    """Return how a figure came about, in words: `estimated by Vela 5.2.0`, or `measured` where no tool estimated it."""
    return f"estimated by {estimated_by}" if estimated_by else "measured"
