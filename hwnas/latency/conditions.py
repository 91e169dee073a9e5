"""What measurements depend on beside the models: the machine, the runtime, the load, the clock, the heat."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hwnas.errors import DeviceError
from hwnas.latency.reasons import reasons

_COMPARABLE = ("cpu", "cores", "arch", "runtime", "runtime_version", "threads")
_Number = int | float  # it is written as it was read


class Conditions(BaseModel):
    """Conditions as the runner found them on the device. What it does not tell is None, 0 or empty.

    Further ones, in tables of a newer hwnas, are kept.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    cpu: str = ""
    cores: int = 0  # of the machine
    arch: str = ""
    runtime: str = ""
    runtime_version: str = ""  # with the package's name: `ai-edge-litert 2.3.0`
    threads: int = 0
    pinned: tuple[int, ...] | None = None  # cores that the runner kept to
    governor: str | None = None
    frequency_mhz: tuple[_Number, ...] = ()  # of the pinned cores
    load: _Number | None = None  # the last minute's average
    others_busy: _Number | None = None  # share of all cores' time that other processes took since the runner's start
    temperature_c: _Number | None = None  # the hottest sensor's
    python: str = ""  # empty where the device has none
    numpy: str = ""
    date: str = ""  # UTC
    throttle_count: int | None = None  # these three: hwnas/device/runner.py's `throttling`
    clock_limit: _Number | None = None
    firmware_flags: int | None = None

    @property
    def fingerprint(self) -> dict[str, str | int]:
        """What must agree for two measurements to be comparable."""
        return {name: getattr(self, name) for name in _COMPARABLE}

    def to_json(self) -> dict[str, Any]:
        """Return what is known as JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)

    @classmethod
    def of_runner(cls, fields: Mapping[str, Any]) -> "Conditions":
        """Return what the runner wrote.

        Raises DeviceError for missing and unknown fields, and for values of a wrong type.
        """
        unknown = fields.keys() - cls.model_fields.keys()
        missing = cls.model_fields.keys() - fields.keys() - {"throttle_count", "clock_limit", "firmware_flags"}
        if unknown or missing:
            raise DeviceError(
                "conditions must have the fields of Conditions; "
                f"unknown: {', '.join(sorted(unknown)) or 'none'}; missing: {', '.join(sorted(missing)) or 'none'}"
            )
        try:
            return cls.model_validate({n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()})
        except ValidationError as error:
            raise DeviceError(f"conditions must have the fields of Conditions; got {reasons(error)}") from None
