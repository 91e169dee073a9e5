"""What the lines of hwnas/device/runner.py say: a class for each kind, and the one parser of them all.

A device is not trusted: a line that is no such line, however long, deep or mistyped, is a DeviceError that names the
device, and text is made printable.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import from_json

from hwnas.device import runner
from hwnas.errors import DeviceError, printable
from hwnas.latency.conditions import Conditions
from hwnas.latency.measurement import Bytes, Flag
from hwnas.latency.placement import Placement
from hwnas.support import reasons

_KINDS = {"conditions", "name", "error", "waiting", "canary", "end"}  # one of these fields is in each line
_QUOTED = 200  # characters of a line in an error
_DTYPES = Literal["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"]
_Side = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
_Time = Annotated[float, Field(strict=True, ge=1e-9, lt=1e12)]  # in ms: more than nothing, and less than 30 years
_Wait = Annotated[float, Field(strict=True, ge=0, lt=1e12)]
_Pace = Annotated[float, Field(strict=True, gt=-1e12, lt=1e12)]  # below nothing: it was waited for longer than allowed
_Samples = Annotated[tuple[_Time, ...], Field(min_length=1)]
_Text = Annotated[str, AfterValidator(printable)]


def _conditions(fields: Any) -> Conditions:
    try:
        return Conditions.of_runner(fields)
    except DeviceError as error:
        raise ValueError(error) from None


_Conditions = Annotated[Conditions, PlainValidator(_conditions)]


class _Line(BaseModel):
    """What a line says; further fields are left out."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class TimedLine(_Line):
    """A model that was timed."""

    name: str
    rounds_ms: Annotated[tuple[_Samples, ...], Field(min_length=1)]
    canary_ms: tuple[_Time, ...] = ()
    unstable: Flag
    load_ms: _Wait | None  # None of what is estimated
    first_ms: _Wait | None
    peak_memory_bytes: Bytes | None = None
    placement: Placement | None = None
    layers_ms: dict[str, _Wait] = Field(default_factory=dict)  # by the tensor that each writes, where they are told


class Output(_Line):
    """One of a model's outputs; its bytes are little-endian."""

    dtype: _DTYPES
    shape: Annotated[tuple[_Side, ...], Field(max_length=8)]
    base64: str


class ComputedLine(_Line):
    """A model that was run once."""

    name: str
    outputs: tuple[Output, ...]
    instructions: Annotated[int, Field(strict=True, ge=-(2**62), lt=2**62)] | None
    arena_bytes: Bytes | None = None


class FailedLine(_Line):
    """A model that cannot be loaded or run."""

    name: str
    error: _Text


class ImpossibleLine(_Line):
    """The whole run is impossible."""

    error: _Text


class WaitingLine(_Line):
    """The device is left alone, for so many seconds."""

    waiting: _Wait
    reason: _Text


class CanaryLine(_Line):
    """Where the canary ran."""

    canary: Placement


class ConditionsLine(_Line):
    """What the measurements depend on."""

    conditions: _Conditions


class EndLine(_Line):
    """The run has come to its end."""

    conditions: _Conditions | None = None
    pace: dict[str, _Pace] = Field(default_factory=dict)


Line = TimedLine | ComputedLine | FailedLine | ImpossibleLine | WaitingLine | CanaryLine | ConditionsLine | EndLine


def read_line(line: str | runner.Event, *, where: str) -> Line:
    """Return what a line says. Raises DeviceError, which names the device, for one that says nothing of the kind."""
    content = _content(line)
    if not isinstance(content, dict) or not content.keys() & _KINDS:
        raise DeviceError(
            f"the runner must write lines as hwnas/runner.py says; got {str(line)[:_QUOTED]!r} on {where}"
        )
    try:
        return _kind(content).model_validate(content)
    except ValidationError as error:
        raise DeviceError(f"a line must be as hwnas/runner.py says; {reasons(error)} on {where}") from None


def _content(line: str | runner.Event) -> Any:
    """Return a line's fields; None for what is no JSON, is nested deeply or has numbers of thousands of digits."""
    if not isinstance(line, str):
        return line
    try:
        return from_json(line, allow_inf_nan=False)
    except ValueError:
        return None


def _kind(content: dict[str, Any]) -> type[Line]:
    if "end" in content:
        return EndLine
    if "error" in content:
        return FailedLine if "name" in content else ImpossibleLine
    if "name" in content:
        return ComputedLine if "outputs" in content else TimedLine
    if "canary" in content:
        return CanaryLine
    return WaitingLine if "waiting" in content else ConditionsLine
