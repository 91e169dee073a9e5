"""`hwnas export`: writes winners, or a published network, as ONNX and TFLite files, checked against PyTorch and timed.

An artefact that computes something else, or is over its cap, is not left under its final name.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PlainValidator

from hwnas.artefacts import BY_DEFAULT, FILES, Exported, Wanted, export_published, export_winner, folder_name
from hwnas.datasets import Background
from hwnas.errors import InputError
from hwnas.formats import Input, MetadataReader
from hwnas.support import MAX_SEED, AnyPath, FolderPath, Metavar, Options, bar, commands
from hwnas.verbs._takes import takes

if TYPE_CHECKING:
    from hwnas.device import Device
    from hwnas.runs import DeviceCap


def _file_names(value: object) -> tuple[str, ...]:
    """Read `model.tflite,model.onnx`; raises ValueError, which lists the known ones."""
    names = value.split(",") if isinstance(value, str) else value
    known = tuple(FILES)  # in which a list may be looked for, too
    if not isinstance(names, Sequence) or not names or not all(name in known for name in names):
        raise ValueError(f"must be some of {', '.join(FILES)}")
    return tuple(name for name in FILES if name in names)


class ExportOptions(Options):
    """The options of `hwnas export`."""

    run: AnyPath = Field(
        kw_only=False, description="the run's folder, or a published network's name, as in mobilenet-v2"
    )
    out: FolderPath = Field(
        default=commands.EXPORT, description="folder for the artefacts: OUT/RUN/TRIAL/, or OUT/NAME/RESOLUTION/"
    )
    trial: int | None = Field(default=None, ge=0, description="export this winner alone")
    files: Annotated[Sequence[str], PlainValidator(_file_names), Metavar("NAME,...")] = Field(
        default=BY_DEFAULT,
        description="the files to write; for a device beside the run's first it is the one that its setting runs",
    )
    input: Input = Field(
        default="normalised",
        description="what the files read: normalised images, pixels from 0 to 1, or bytes from 0 to 255",
    )
    metadata: MetadataReader = Field(
        default="tflite",
        description="whose tools take the .tflite files: tflite's, or mediapipe's, which take images in colour as "
        "bytes (--input uint8) or pixels, as they do not normalise by channel",
    )
    batch: int | None = Field(
        default=None, ge=1, description="images that a file takes at once; without it 1 in TFLite, any in ONNX"
    )
    allow_over_cap: bool = Field(default=False, description="keep an artefact that is over a cap")
    explain: bool = Field(default=False, description="time each file without each of its rewrites: what they save")
    weights: AnyPath | None = Field(
        default=None,
        description="of a published network: torchvision's checkpoint, hwnas's own weights.safetensors, or `random`, "
        "to time it alone",
    )
    data: str | None = Field(default=None, description="of a published network: the data set, as in `hwnas search`")
    resolution: int | None = Field(
        default=None,
        ge=1,
        description="of a published network: the side of the images in pixels; without it its paper's",
    )
    device: AnyPath | None = Field(
        default=None, description="of a published network: the device that it is timed on; without it host"
    )
    setting: str | None = Field(
        default=None, description="of a published network: the device's setting; without it the first"
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="of a published network: the seed by which data are split; without it 0",
    )
    transparent: Background | None = Field(
        default=None,
        description="of a published network: what image files are read as where they are transparent; without it white",
    )
    skip_broken: bool = Field(
        default=False, description="of a published network: leave out image files that cannot be read"
    )


def _files_for(capped: "DeviceCap", machine: "Device") -> tuple[str, ...]:
    """Return the file that a device's setting runs; raises InputError for a runtime of which none is exported."""
    setting = machine.setting(capped.setting)
    name = next((name for name, kind in FILES.items() if kind == (setting.runtime, setting.precision)), None)
    if name is None:
        raise InputError(
            f"an exported file is one of {', '.join(FILES)}; none of them is for {capped.name}. Search without"
        )
    return (name,)


@takes(ExportOptions)
def export(options: ExportOptions) -> list[Exported]:
    """Export a run's trained winners, or a published network, as ONNX and TFLite (fp32 and int8), checked and timed.

    With `input` other than normalised the networks normalise by themselves: float32 from 0 to 1, or uint8. Of a `batch`
    an image's share of the latency is stated and held against the cap.
    Of a run on several devices a further one's file is written, checked and timed in a folder of its own,
    OUT/RUN/TRIAL-DEVICE-SETTING.
    Raises InputError where no winner was trained, where a published network and its weights do not fit and where the
    folder cannot be written. Raises ExportError, with the figures, for artefacts that are refused, once the other
    winners are exported: its `exported` is the list of these, as it would have been returned.
    """
    from hwnas.artefacts import published
    from hwnas.device import load_device
    from hwnas.device.transports import check_starts
    from hwnas.errors import ExportError
    from hwnas.network import PUBLISHED
    from hwnas.runs import Run, WinnerFolder

    run, trial, out = str(options.run), options.trial, str(options.out)
    wanted = Wanted.of(
        tuple(options.files),
        input=options.input,
        batch=options.batch,
        metadata=options.metadata,
        explain=options.explain,
        allow_over_cap=options.allow_over_cap,
    )
    of_published: dict[str, Any] = {
        "weights": None if options.weights is None else str(options.weights),
        "data": options.data,
        "resolution": options.resolution,
        "seed": options.seed,
        "device": None if options.device is None else str(options.device),
        "setting": options.setting,
        "transparent": options.transparent,
        "skip_broken": options.skip_broken or None,
    }
    if run in PUBLISHED and not Path(run).exists():
        if trial is not None:
            raise InputError(f"--trial is one of a run's; got {trial} for the published network {run}. Leave it out")
        return [export_published(published.ask(run, **of_published), Path(out), wanted)]
    if any(value is not None for value in of_published.values()):
        raise InputError(
            "--weights, --data, --resolution, --seed, --device, --setting, --transparent and --skip-broken are for the "
            f"published networks {', '.join(PUBLISHED)}; got {run}. Name one of them, or a run's folder alone: it has "
            "its own"
        )
    opened = Run.open(run)
    winners = WinnerFolder.trained_in(opened.folder)
    if trial is not None:
        winners = [winner for winner in winners if winner.path == opened.winner_folder(trial)]
    if not winners:
        what = "no trained winner" if trial is None else f"no trained winner {trial}"
        raise InputError(f"{opened.folder} has {what} to export. Type: {commands.train(opened.folder, trial=trial)}")
    devices = opened.settings.devices
    machines = [load_device(device.device) for device in devices]
    if not opened.settings.predicted:
        for machine in machines:
            check_starts(machine)  # which may ask: now, not below a bar
    exported, refused = [], []
    with opened.locked(), bar("exporting", len(winners) * len(devices)) as exporting:
        for winner, (place, device) in product(winners, enumerate(devices)):
            asked = replace(wanted, files=_files_for(device, machines[place])) if place else wanted
            target = Path(out) / opened.name / folder_name(winner.path.name, device if place else None)
            try:
                exported.append(export_winner(opened, winner, target, machines[place], asked, place=place))
            except ExportError as error:
                refused.append(f"trial {target.name}: {error}")
            exporting.advance()
    if refused:
        raise ExportError("\n".join(refused), exported=exported)
    return exported
