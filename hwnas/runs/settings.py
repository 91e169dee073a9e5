"""What a search was asked for: settings.json of a run."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwnas.errors import InputError
from hwnas.latency import Budget
from hwnas.network import Scale, ladder

if TYPE_CHECKING:
    from hwnas.datasets import Dataset


class SearchSettings(BaseModel):
    """What a search was asked for; all of it but `trials` must be the same when it is taken up again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    device: str
    setting: str
    threads: int = Field(ge=1)
    max_latency_ms: float = Field(gt=0)
    max_mult_adds: float | None = Field(default=None, gt=0)
    max_parameters: float | None = Field(default=None, gt=0)
    data: str
    resolution: tuple[int, ...]
    skeleton: Literal["cifar", "imagenet"] | None = None
    channels: int
    classes: int
    validation: float
    space: str
    cells: tuple[int, ...]
    filters: tuple[int, ...]
    strategy: str
    surrogate: str
    proxies: tuple[str, ...] = ()
    estimator: str = "training"
    trials: int = Field(ge=1)
    targets: tuple[float, ...]
    proxy_filters: float = Field(gt=0, le=1)
    images: int | None
    epochs: float = Field(gt=0)
    pruner: str = "none"
    inherit: bool = False
    seed: int
    predicted: bool
    storage: str | None

    @property
    def budget(self) -> Budget:
        """The caps."""
        return Budget(self.max_latency_ms, self.max_mult_adds, self.max_parameters)

    @property
    def scales(self) -> tuple[Scale, ...]:
        """The scales that a candidate may be deployed at."""
        return ladder(
            self.cells,
            self.filters,
            self.resolution,
            classes=self.classes,
            channels=self.channels,
            skeleton=self.skeleton,
        )

    def proxy_scale(self, scale: Scale) -> Scale:
        """Return the scale of short training for one of deployment."""
        return scale.with_filters(max(1, round(scale.filters * self.proxy_filters)))

    def dataset(self, resolution: int) -> "Dataset":
        """Return the run's data at one of its resolutions, in pixels."""
        from hwnas import datasets

        return datasets.load(self.data, seed=self.seed, resolution=resolution)


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def make_settings(**values: Any) -> SearchSettings:
    """Return validated settings; raises InputError that names the option."""
    try:
        return SearchSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise InputError(f"--{option}: {first['msg']}; got {first['input']!r}") from None
