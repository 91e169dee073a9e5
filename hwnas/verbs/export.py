"""`hwnas export`: writes winners, or a published network, as ONNX and TFLite files, checked against PyTorch and timed.

An artefact that computes something else, or is over its cap, is not left under its final name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from hwnas.artefacts import BY_DEFAULT, FILES, Exported, Wanted, export_published, export_winner
from hwnas.errors import InputError
from hwnas.formats import Input, checked_form
from hwnas.support import bar


def _file_names(text: str | Sequence[str]) -> tuple[str, ...]:
    """Read `model.tflite,model.onnx`; raises InputError, which lists the known ones."""
    names = text.split(",") if isinstance(text, str) else tuple(text)
    if not names or not set(names) <= FILES.keys():
        raise InputError(f"files must be some of {', '.join(FILES)}; got {','.join(names)!r}")
    return tuple(name for name in FILES if name in names)


def export(
    run: Annotated[str, typer.Argument(help="the run's folder, or a published network's name, as in mobilenet-v2")],
    *,
    out: Annotated[
        str, typer.Option(help="folder for the artefacts: OUT/RUN/TRIAL/, or OUT/NAME/RESOLUTION/")
    ] = "export",
    trial: Annotated[int | None, typer.Option(help="export this winner alone")] = None,
    files: Annotated[
        Sequence[str], typer.Option(parser=_file_names, metavar="NAME,...", help="the files to write")
    ] = BY_DEFAULT,
    input: Annotated[
        Input, typer.Option(help="what the files read: normalised images, pixels from 0 to 1, or bytes from 0 to 255")
    ] = "normalised",
    batch: Annotated[
        int | None, typer.Option(help="images that a file takes at once", show_default="1 in TFLite, any in ONNX")
    ] = None,
    allow_over_cap: Annotated[
        bool, typer.Option("--allow-over-cap", help="keep an artefact whose measured latency is over the cap")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="time each file without each of its rewrites: what they save")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            help="of a published network: torchvision's checkpoint, hwnas's own weights.safetensors, or `random`, to "
            "time it alone"
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="of a published network: the data set, as in `hwnas search`")] = None,
    resolution: Annotated[
        int | None, typer.Option(help="of a published network: the side of the images in pixels", show_default="224")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="of a published network: the device that it is timed on", show_default="host")
    ] = None,
    setting: Annotated[
        str | None, typer.Option(help="of a published network: the device's setting", show_default="the first")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="of a published network: the seed by which data are split", show_default="0")
    ] = None,
) -> list[Exported]:
    """Export a run's trained winners, or a published network, as ONNX and TFLite (fp32 and int8), checked and timed.

    With `input` other than normalised the networks normalise by themselves: float32 from 0 to 1, or uint8. Of a `batch`
    an image's share of the latency is stated and held against the cap.
    Raises InputError where no winner was trained, where a published network and its weights do not fit and where the
    folder cannot be written. Raises ExportError, with the figures, for artefacts that are refused, once the other
    winners are exported: its `exported` is the list of these, as it would have been returned.
    """
    from hwnas.artefacts import published
    from hwnas.device import load_device
    from hwnas.errors import ExportError
    from hwnas.network import PUBLISHED
    from hwnas.runs import Run, WinnerFolder

    wanted = Wanted(_file_names(files), checked_form(input, batch), explain, allow_over_cap)
    if run in PUBLISHED and not Path(run).exists():
        if trial is not None:
            raise InputError(f"--trial is one of a run's; got {trial} for the published network {run}. Leave it out")
        asked = published.ask(
            run, weights=weights, data=data, resolution=resolution, seed=seed, device=device, setting=setting
        )
        return [export_published(asked, Path(out), wanted)]
    if any(value is not None for value in (weights, data, resolution, seed, device, setting)):
        raise InputError(
            f"--weights, --data, --resolution, --seed, --device and --setting are for the published networks "
            f"{', '.join(PUBLISHED)}; got {run}. Name one of them, or a run's folder alone: it has its own"
        )
    opened = Run.open(run)
    winners = WinnerFolder.trained_in(opened.folder)
    if trial is not None:
        winners = [winner for winner in winners if winner.path == opened.winner_folder(trial)]
    if not winners:
        what = "no trained winner" if trial is None else f"no trained winner {trial}"
        raise InputError(f"{opened.folder} has {what} to export. Type: hwnas train {opened.folder}")
    machine = load_device(opened.settings.device)
    exported, refused = [], []
    with opened.locked(), bar("exporting", len(winners)) as exporting:
        for winner in winners:
            target = Path(out) / opened.name / winner.path.name
            try:
                exported.append(export_winner(opened, winner, target, machine, wanted))
            except ExportError as error:
                refused.append(f"trial {winner.path.name}: {error}")
            exporting.advance()
    if refused:
        raise ExportError("\n".join(refused), exported=exported)
    return exported
