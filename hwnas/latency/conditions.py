"""What measurements depend on beside the models: the machine, the runtime, the load, the clock, the heat."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hwnas.errors import DeviceError, cut, printable, short
from hwnas.support import reasons

_COMPARABLE = ("cpu", "cores", "arch", "runtime", "runtime_version", "threads")
_Number = Annotated[int | float, Field(ge=-1e18, le=1e18)]  # it is written as it was read
_Count = Annotated[int, Field(ge=0, lt=2**62)]
_Text = Annotated[str, AfterValidator(printable)]


class Conditions(BaseModel):
    """Conditions as the runner found them on the device. What it does not tell is None, 0 or empty.

    Further ones, in tables of a newer hwnas, are kept.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    cpu: _Text = ""
    cores: _Count = 0  # of the machine
    arch: _Text = ""
    runtime: _Text = ""
    runtime_version: _Text = ""  # with the package's name: `ai-edge-litert 2.3.0`
    threads: _Count = 0
    pinned: tuple[_Count, ...] | None = None  # cores that the runner kept to
    governor: _Text | None = None
    frequency_mhz: tuple[_Number, ...] = ()  # of the pinned cores
    load: _Number | None = None  # the last minute's average
    others_busy: _Number | None = None  # share of all cores' time that other processes took since the runner's start
    temperature_c: _Number | None = None  # the hottest sensor's
    python: _Text = ""  # empty where the device has none
    numpy: _Text = ""
    date: _Text = ""  # UTC
    throttle_count: _Count | None = None  # these three: hwnas/device/runner.py's `throttling`
    clock_limit: _Number | None = None
    firmware_flags: _Count | None = None

    @property
    def fingerprint(self) -> dict[str, str | int]:
        """What must agree for two measurements to be comparable."""
        return {name: getattr(self, name) for name in _COMPARABLE}

    def to_json(self) -> dict[str, Any]:
        """Return what is known as JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)

    @classmethod
    def of_runner(cls, fields: Any) -> "Conditions":
        """Return what the runner wrote.

        Raises DeviceError for missing and unknown fields, and for values of a wrong type.
        """
        if not isinstance(fields, Mapping):
            raise DeviceError(f"conditions must have the fields of Conditions; got {short(fields)}")
        unknown = fields.keys() - cls.model_fields.keys()
        missing = cls.model_fields.keys() - fields.keys() - {"throttle_count", "clock_limit", "firmware_flags"}
        if unknown or missing:
            raise DeviceError(
                "conditions must have the fields of Conditions; "
                f"unknown: {cut(', '.join(sorted(unknown))) or 'none'}; missing: {', '.join(sorted(missing)) or 'none'}"
            )
        try:
            return cls.model_validate({n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()})
        except ValidationError as error:
            raise DeviceError(f"conditions must have the fields of Conditions; got {reasons(error)}") from None
