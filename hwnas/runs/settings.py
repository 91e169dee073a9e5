"""What a search is asked for: the options of `hwnas search`, and what a run keeps of them in settings.json.

An option is one field below (hwnas/support/options.py says what comes of it).
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from hwnas.datasets import Background, Fingerprint
from hwnas.errors import InputError
from hwnas.latency import Budget
from hwnas.network import Scale, ladder
from hwnas.network.scale import MOST
from hwnas.runs.device_caps import DeviceCap, DeviceField
from hwnas.runs.storage import check_storage
from hwnas.support import (
    MAX_SEED,
    AnyNames,
    AnyPath,
    FilePath,
    FolderPath,
    Metavar,
    Options,
    PlugIn,
    Shares,
    WholeNumbers,
    checked,
    commands,
    plugins,
    remark,
)

if TYPE_CHECKING:
    from hwnas.datasets import Dataset

SETTINGS_VERSION = 1  # that is written, and the newest that is read
DEFAULT_CELLS = (1, 2)
DEFAULT_FILTERS = (4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64)


def _no_larger(sides: Sequence[int]) -> Sequence[int]:
    if max(sides) > MOST["resolution"]:
        raise ValueError(f"must be at most {MOST['resolution']} pixels")
    return sides


Sides = Annotated[WholeNumbers, AfterValidator(_no_larger), Metavar("SIDE,...")]


Cells = Annotated[WholeNumbers, Metavar("N,...")]
Filters = Annotated[WholeNumbers, Metavar("F,...")]


class DeviceOptions(Options):
    """What networks are timed on."""

    device: AnyPath = Field(default="host", description="device: a file devices/NAME.toml, or its path")
    setting: str | None = Field(
        default=None,
        description="one of the device's settings, such as tflite-fp32-1t; without it the first",
    )
    threads: int | None = Field(default=None, gt=0, description="threads of the runtime; without it the setting's")


class SpaceOptions(Options):
    """What can be chosen, and at which scales."""

    space: Annotated[str, PlugIn("spaces")] = Field(default="mobile", description="search space")
    cells: Cells | None = Field(default=None, description="choices of N, the cells of a stage; without it the space's")
    filters: Filters | None = Field(
        default=None, description="choices of F, the first stage's filters; without it the space's"
    )
    skeleton: Literal["cifar", "imagenet"] | None = Field(
        default=None, description="stem and strides of the networks; without it imagenet from 96 pixels on"
    )

    @property
    def sizes(self) -> tuple[Sequence[int], Sequence[int]]:
        """The choices of N and of F: what was asked for, else the space's."""
        space = plugins.load("spaces", self.space)
        usual: tuple[Sequence[int], Sequence[int]] = (
            getattr(space, "CELLS", DEFAULT_CELLS),
            getattr(space, "FILTERS", DEFAULT_FILTERS),
        )
        return self.cells or usual[0], self.filters or usual[1]


class RunFolder(Options):
    """What takes a run that there is."""

    run: AnyPath = Field(kw_only=False, description="the run's folder: the --out of its search")


class SearchRequest(DeviceOptions, SpaceOptions):
    """The options that a run keeps."""

    device: AnyPath = Field(
        default="host",
        description="device: a file devices/NAME.toml, or its path; or several, each with its cap, as in "
        "pixel8=12ms,pi4/tflite-int8-4t=40ms, without --max-latency-ms: networks keep all caps, and are compared by "
        "the largest share of one",
    )
    max_latency_ms: float | None = Field(
        default=None, gt=0, description="cap on the latency on the device, in milliseconds"
    )
    max_mult_adds: float | None = Field(default=None, gt=0, description="cap on the multiply-accumulates")
    max_parameters: float | None = Field(default=None, gt=0, description="cap on the parameters")
    max_file_kib: float | None = Field(
        default=None,
        gt=0,
        description="cap on the exported file of the setting's runtime and precision, in KiB; of several devices the "
        "first one's",
    )
    max_activation_kib: float | None = Field(
        default=None,
        gt=0,
        description="cap on the arena of activations of a TFLite file, in KiB: without a delegate, and without what "
        "kernels take beside it",
    )
    data: str = Field(
        default="fashion-mnist",
        description="data set: fashion-mnist, cifar10, cifar100 (NAME:PATH for a copy), folder:PATH (one folder a "
        "class) or npz:PATH, a NumPy archive of x_train and x_test (uint8 [n, height, width] or [n, height, width, "
        "channels]), y_train and y_test (integers [n], from 0), and, if you like, classes (their names)",
    )
    resolution: Sides | None = Field(
        default=None, description="choices of the side of the images in pixels; without it the data set's"
    )
    transparent: Background = Field(
        default="white", description="what image files are read as where they are transparent: white or black"
    )
    skip_broken: bool = Field(default=False, description="leave out image files that cannot be read")
    strategy: Annotated[str, PlugIn("strategies")] = Field(
        default="evolution",
        description="search strategy: progressive, evolution, controller (RL by PPO), controller-reinforce, random, "
        "tpe, gp or nsga2; of those that learn by shared weights before the first trial enas, darts, darts-second, "
        "fbnet or proxyless",
    )
    surrogate: Annotated[str, PlugIn("surrogates")] = Field(
        default="lstm", description="what progressive ranks candidates by"
    )
    proxies: Annotated[AnyNames, PlugIn("proxies")] = Field(
        default=(),
        description="zero-cost proxies that the surrogate reads, too, of the best few of each level: synflow, naswot, "
        "jacob-cov",
    )
    estimator: Annotated[str, PlugIn("estimators")] = Field(
        default="training-speed",
        description="what says how good a candidate is: training of each, training-speed (a tenth of it: how fast "
        "its loss falls), supernet (weights that all share, trained once), or size, a stand-in that costs nothing",
    )
    supernet: float = Field(
        default=20.0,
        gt=0,
        description="how long shared weights train before the first trial (the estimator supernet; the strategies "
        "enas, darts, darts-second, fbnet and proxyless), in short trainings of one candidate; darts, darts-second, "
        "fbnet and proxyless with --estimator supernet train for so long twice: what they derive from, then what it "
        "is looked at with",
    )
    weights: FilePath | None = Field(
        default=None,
        description="torchvision's checkpoint of MobileNetV2, V3-Large or V3-Small, with whose weights those of "
        "--estimator supernet begin in the space mbconv; images are then normalised as it reads them",
    )
    trials: int = Field(default=40, gt=0, description="candidates to train")
    targets: Shares = Field(default=(0.4, 0.6, 0.8, 1.0), description="latency targets, as shares of the cap")
    fill: float = Field(
        default=0.25,
        ge=0,
        lt=1,
        description="share of the trials, the last ones, that are like the most accurate so far at sizes that use the "
        "whole of the largest target; 0: the strategy proposes all; what enas, darts and the like derive takes no part",
    )
    proxy_filters: float = Field(
        default=0.5, gt=0, le=1, description="filters in short training, as a share of the deployed"
    )
    images: int | None = Field(default=6000, gt=0, description="training images an epoch of short training")
    epochs: float = Field(default=2.0, gt=0, description="epochs of short training, each of so many --images")
    pruner: Annotated[str, PlugIn("pruners")] = Field(
        default="none",
        description="what stops short training before its end: none, halving, hyperband or extrapolation",
    )
    inherit: bool = Field(
        default=False, description="begin short training with the weights of the most alike trained network"
    )
    quantised: bool = Field(
        default=False,
        description="in a setting of int8, judge candidates by their accuracy in int8: each one's trained proxy is "
        "calibrated on 100 training images and run here by the setting's runtime; its fp32 accuracy is kept, too",
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="seed of every random choice")
    predicted: bool = Field(
        default=False, description="go on without the device: latencies are predictions, and labelled so"
    )
    storage: str | None = Field(
        default=None,
        description="Optuna storage URL, with a variable's name for the password, as in "
        "'postgresql://user:$DB_PASSWORD@host/db'; without it a journal in the run's folder",
    )


class SearchOptions(SearchRequest):
    """The options of `hwnas search`."""

    out: FolderPath = Field(description="the run's folder; an interrupted run in it goes on")
    workers: int = Field(default=1, gt=0, description="processes on this machine that evaluate candidates")
    profile: bool = Field(
        default=True,
        description="first measure what the device's latency table lacks for this search, as `hwnas profile` does; "
        "without it, and with --predicted, the search is refused then, with the command that measures it",
    )
    plan: bool = Field(
        default=False,
        description="say what would be done, and end: nothing is measured or written, and the device is not asked",
    )


class SearchSettings(SearchRequest):
    """What a search was asked for, with what was left open decided; a run's settings.json.

    All of it but `trials` and `skip_broken` must be the same when it is taken up again; an older hwnas took no
    fingerprint of the data.
    """

    version: int = SETTINGS_VERSION
    device: DeviceField
    setting: str
    threads: int = Field(ge=1)
    max_latency_ms: float = Field(gt=0)
    further: Annotated[tuple[DeviceCap, ...], Field(strict=False)] = ()  # devices beside the first; older: none
    cells: Cells
    filters: Filters
    resolution: Sides
    channels: int
    classes: int
    validation: float
    fingerprint: Fingerprint | None = None

    @model_validator(mode="before")
    @classmethod
    def _older(cls, content: Any) -> Any:
        """Read what an older hwnas wrote, which filled nothing."""
        return {"fill": 0.0, **content} if isinstance(content, dict) else content

    @classmethod
    def of(cls, options: SearchRequest, *, devices: Sequence[DeviceCap], dataset: "Dataset") -> "SearchSettings":
        """Return what was asked for, on devices, of which there is at least one, and on the data at hand.

        Raises InputError for a storage that has its password in the open.
        """
        check_storage(options.storage)
        asked = {name: getattr(options, name) for name in SearchRequest.model_fields}
        decided = {
            **dict(devices[0]),
            "further": tuple(devices[1:]),
            **dict(zip(("cells", "filters"), options.sizes, strict=True)),
            "resolution": options.resolution or (dataset.resolution,),
            "channels": dataset.channels,
            "classes": len(dataset.classes),
            "validation": 0.1,
            "fingerprint": dataset.fingerprint,
        }
        return make_settings(**{**asked, **decided})

    @property
    def training_images(self) -> int | None:
        """How many images the whole training set had; an older hwnas did not keep that."""
        return sum(self.fingerprint.training.counts) if self.fingerprint else None

    @property
    def is_int8(self) -> bool:
        """Whether what ships is an int8 file, by the setting's name."""
        return "-int8-" in self.setting

    @property
    def devices(self) -> tuple[DeviceCap, ...]:
        """The devices with their caps, the first one first."""
        first = DeviceCap(
            device=self.device, setting=self.setting, threads=self.threads, max_latency_ms=self.max_latency_ms
        )
        return (first, *self.further)

    @property
    def by_device(self) -> "tuple[SearchSettings, ...]":
        """The same of each device alone; caps on memory are the first one's."""
        first, *further = [self.model_copy(update={**dict(device), "further": ()}) for device in self.devices]
        no_memory = {"max_file_kib": None, "max_activation_kib": None}
        return (first, *(settings.model_copy(update=no_memory) for settings in further))

    @property
    def budget(self) -> Budget:
        """The caps; of several devices' latencies the largest share of a cap has one, 1."""
        return Budget(
            1.0 if self.further else self.max_latency_ms,
            devices=",".join(map(str, self.devices)) if self.further else "",
            max_mult_adds=self.max_mult_adds,
            max_parameters=self.max_parameters,
            max_file_kib=self.max_file_kib,
            max_activation_kib=self.max_activation_kib,
        )

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

    def raised_command(self, caps: Container[str]) -> commands.Command:
        """Return the command that asks for this in another folder; caps, as a `Budget` names them, are to be raised."""
        in_words = {"mult_adds": "NUMBER", "parameters": "NUMBER", "file_kib": "KIB", "activation_kib": "KIB"}
        options = {
            f"max_{name}": word for name, word in in_words.items() if name in caps and getattr(self, f"max_{name}")
        }
        if self.further and "latency" in caps:
            options["device"] = ",".join(f"{device.name}=MSms" for device in self.devices)
        latency_ms: float | str = "MS" if "latency" in caps else self.max_latency_ms
        return self._search("RUN", latency_ms, options)

    def search_command(self, out: AnyPath) -> commands.Command:
        """Return the command that asks for just this: in the run's own folder it goes on.

        What only Python can give, such as None for `images`, is not in it.
        """
        return self._search(out, self.max_latency_ms, {})

    def _search(self, out: AnyPath, latency_ms: float | str, options: Mapping[str, object]) -> commands.Command:
        """Return the command that asks for this but for some options; caps of several devices stand behind these."""
        several = {"device": ",".join(map(str, self.devices)), "setting": None, "threads": None}
        return commands.search(
            out,
            max_latency_ms=None if self.further else latency_ms,
            options={**self._options(), **(several if self.further else {}), **options},
        )

    def _options(self) -> dict[str, object]:
        """Return the options of a command, all but the latency's cap, that are not as they would be anyway."""
        usual = SpaceOptions(space=self.space).sizes
        defaults = dict(zip(("cells", "filters"), usual, strict=True))
        return {
            name: getattr(self, name)
            for name, field in SearchRequest.model_fields.items()
            if name != "max_latency_ms" and getattr(self, name) != defaults.get(name, field.default)
        }

    def profile_command(self, *, fresh: bool = False) -> commands.Command:
        """Return the command that measures all that the search needs."""
        return commands.profile(
            self.device,
            setting=self.setting,
            space=self.space,
            cells=self.cells,
            filters=self.filters,
            resolution=self.resolution,
            channels=self.channels,
            classes=self.classes,
            skeleton=self.skeleton,
            fresh=fresh,
        )

    def dataset(self, resolution: int) -> "Dataset":
        """Return the run's data at one of its resolutions, in pixels; raises InputError where they have changed.

        Where known weights are taken, the images are normalised as these read them, for all that the run trains.
        """
        from hwnas import datasets

        dataset = datasets.load(
            self.data,
            seed=self.seed,
            resolution=resolution,
            background=self.transparent,
            skip_broken=self.skip_broken,
        )
        self.refuse_other_data(dataset.fingerprint)
        return dataset if self.weights is None else _as_torchvision_reads(dataset)

    def refuse_other_data(self, now: Fingerprint | None) -> None:
        """Raise InputError where the data are not those that the search was begun with; a new test set is only said."""
        if self.fingerprint is None or now is None:
            return
        if changes := self.fingerprint.changes(now):
            raise InputError(
                f"{self.data} must be as it was when the search was begun: {changes}. Put the old images back, or "
                "search again with another --out"
            )
        if changes := self.fingerprint.test_changes(now):
            remark(f"{self.data} is not as it was when the search was begun: {changes}")


def _as_torchvision_reads(dataset: "Dataset") -> "Dataset":
    from hwnas.training.pretrained import IMAGENET_MEAN, IMAGENET_STD

    return replace(dataset, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def make_settings(**values: Any) -> SearchSettings:
    """Return validated settings; raises InputError that names the option."""
    return checked(SearchSettings, values)
