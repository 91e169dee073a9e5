"""An artefact's folder: the SHA-256 of each of its files, and check.npz, on which they are checked without torch.

Export writes it, verify reads it. check.npz holds test images and what PyTorch computed of them.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.errors import ExportError, InputError, quoted
from hwnas.formats import AS_USUAL, Form, Reading
from hwnas.support import MIB, commands, held, read_array, read_json, remedy, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hwnas.artefacts.card import Card, CheckEntry, TensorEntries
    from hwnas.formats import Array
    from hwnas.runs import DeviceCap

CARD, README, SCRIPT, CHECK = "card.json", "README.md", "run.py", "check.npz"
FILES = {  # runtime and precision
    "model.tflite": ("tflite", "fp32"),
    "model.onnx": ("onnx", "fp32"),
    "model.int8.tflite": ("tflite", "int8"),
    "model.fp16.tflite": ("tflite", "fp16"),
    "model.dynamic.tflite": ("tflite", "dynamic"),
    "model.int8.onnx": ("onnx", "int8"),
}
BY_DEFAULT = ("model.tflite", "model.onnx", "model.int8.tflite")
_MOST_BYTES = 256 * MIB  # of an array of check.npz, unpacked


def folder_name(winner: str, further: "DeviceCap | None" = None) -> str:
    """Return the name of an artefact's folder: the winner's, and behind it what is for a device beside the first."""
    return f"{winner}-{further.device}-{further.setting}" if further else winner


@dataclass(frozen=True, slots=True)
class Check:
    """Test images, uint8 [n, c, h, w], with PyTorch's logits [n, classes] and the labels [n]."""

    pixels: "NDArray[np.uint8]"
    logits: "Array"
    labels: "NDArray[np.int64]"

    def images(self, card: "Card") -> "NDArray[Any]":
        """Return the images as the files of a card read them, [n, c, h, w]."""
        return Reading(card.input, card.data.mean, card.data.std).read(self.pixels)

    def check_fits(self, card: "Card") -> None:
        """Raise ValueError where these are not images, logits and labels of a card's network."""
        data, count = card.data, len(self.labels) if self.labels.ndim else 0
        shapes = {
            "pixels": (count, data.channels, data.resolution, data.resolution),
            "logits": (count, len(data.classes)),
            "labels": (count,),
        }
        for (name, shape), kind in zip(shapes.items(), ("u", "f", "iu"), strict=True):
            array = getattr(self, name)
            if array.shape != shape or array.dtype.kind not in kind or not count:
                raise ValueError(f"{name} of {array.dtype} {list(array.shape)}, where the card's are {list(shape)}")
        if card.check and card.check.images != count:
            raise ValueError(f"{count} images, where the card says {card.check.images}")
        if self.pixels.dtype.itemsize != 1 or self.labels.min() < 0 or self.labels.max() >= len(data.classes):
            raise ValueError(f"labels that are none of {len(data.classes)} classes, or pixels that are no bytes")

    def write(self, path: Path) -> "CheckEntry":
        """Write the file, and return what a card says of it."""
        import numpy as np

        from hwnas.artefacts.card import CheckEntry

        np.savez_compressed(path, pixels=self.pixels, logits=self.logits, labels=self.labels)
        return CheckEntry(images=len(self.labels), sha256=sha256(path))


def read_check(folder: Path, card: "Card") -> Check:
    """Return an artefact's check.npz, once its files are found to be the ones that were exported.

    Raises InputError for a folder of an older hwnas and for missing files, ExportError for files that were changed.
    """
    if not _has_hashes(card):
        raise InputError(
            f"{folder} must have {CHECK} and the SHA-256 of each file in {CARD}; an older hwnas exported it without. "
            f"Write it again: {again(folder, card)}"
        )
    if not _is_sealed(card):
        say(f"{folder} was exported by an older hwnas: {CARD}, {README} and {SCRIPT} have no SHA-256 to be held to")
    missing = [name for name in _hashes(card) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} must have the files of its {CARD}; {', '.join(missing)} is not there. "
            f"Write it again: {again(folder, card)}"
        )
    if changed := changed_files(folder, card):
        raise ExportError(
            f"a file must have the SHA-256 that {folder / CARD} states; {', '.join(changed)} was changed since it was "
            f"exported. Copy it again, or write it again: {again(folder, card)}"
        )
    _refuse_other_tensors(folder, card)
    try:
        arrays = {name: read_array(folder / CHECK, name, most_bytes=_MOST_BYTES) for name in Check.__slots__}
        check = Check(**arrays)
        check.check_fits(card)
    except ValueError as error:
        raise InputError(
            f"{folder / CHECK} must hold pixels, logits and labels; got: {quoted(error)}. Write it again: "
            f"{again(folder, card)}"
        ) from None
    return check


def _refuse_other_tensors(folder: Path, card: "Card") -> None:
    """Raise ExportError where a model file has other inputs and outputs, or another size, than the card states."""
    for name, entry in card.files.items():
        path = folder / name
        is_other = entry.tensors is not None and entry.tensors != _tensors_or_none(path, entry.runtime)
        if is_other or entry.bytes != path.stat().st_size:
            raise ExportError(
                f"{folder / CARD} must state the size of {name}, and the shapes, types and scales of its input and "
                f"output; it states others. Copy it again, or write it again: {again(folder, card)}"
            )


def _tensors_or_none(path: Path, runtime: str) -> "TensorEntries | None":
    try:
        return tensors(path, runtime)
    except Exception:  # noqa: BLE001  the runtimes raise what they like on a file that is none of theirs
        return None


def again(folder: Path, card: "Card | None" = None) -> commands.Command:
    """Return the command that writes an artefact, OUT/RUN/TRIAL, again, as far as its place and its card tell.

    RUN is the run's folder, of which they tell the name alone; WEIGHTS and DATA are those of a published network.
    """
    from hwnas.network import PUBLISHED

    *_, name, number = folder.absolute().parts
    options = _form_options(card)
    if (card is None and name in PUBLISHED) or (card is not None and card.trial is None):
        network = name if card is None else card.run
        options |= _published_options(number, card)
        return commands.export(network, out=_out(folder, card), options=options)
    number = number.partition("-")[0]  # behind it a device beside the first
    trial = card.trial if card else int(number) if number.isdecimal() else None
    return commands.export(trial=trial, out=_out(folder, card), options=options)


def _out(folder: Path, card: "Card | None") -> commands.Text:
    """Return the OUT of an artefact that is where it was written, and the usual one of others."""
    place, usual = folder.absolute(), Path(commands.EXPORT).absolute()
    is_there = place.name.partition("-")[0].isdecimal() and (card is None or card.run == place.parent.name)
    return place.parent.parent if is_there and place.parent.parent != usual else commands.EXPORT


def _form_options(card: "Card | None") -> dict[str, object]:
    """Return the options by which an artefact's files are not the usual ones."""
    if card is None:
        return {}
    return {
        "files": tuple(card.files) if set(card.files) != set(BY_DEFAULT) else None,
        "input": card.input if card.input != AS_USUAL.input else None,
        "batch": card.batch,
    }


def _published_options(resolution: str, card: "Card | None") -> dict[str, object]:
    """Return the options that a published network was exported with."""
    if card is None:
        return {"weights": "WEIGHTS", "data": "DATA", "resolution": resolution}
    return {
        "weights": "WEIGHTS" if card.is_trained else "random",
        "data": card.data.name,
        "resolution": card.data.resolution,
        "device": card.device,
        "setting": card.setting,
        "seed": card.data.seed,
    }


def changed_files(folder: Path, card: "Card") -> list[str]:
    """Return an artefact's files, its card among them, that are missing or have another hash than the card states."""
    own = [CARD] if _is_sealed(card) and _card_sha256(folder) != card.sha256 else []
    return own + [
        name
        for name, expected in _hashes(card).items()
        if not (folder / name).is_file() or sha256(folder / name) != expected
    ]


def _card_sha256(folder: Path) -> str:
    """Return the hash of a card as it is in its file: what reading makes of a value does not count."""
    from hwnas.artefacts.card import hash_of_card

    return hash_of_card(read_json(folder / CARD, what="an artefact's card"))


def _is_sealed(card: "Card") -> bool:
    """Whether a card states its own hash and those of the texts beside it: an older one does not."""
    return card.sha256 is not None or bool(card.texts)


def whole_card(folder: Path, names: Iterable[str], form: Form = AS_USUAL) -> "Card | None":
    """Return the card of an artefact that has these model files, of that form, all as they were exported.

    None for any other, and for one whose card cannot be read.
    """
    from hwnas.artefacts.card import Card

    if not all((folder / name).is_file() for name in (CARD, README, SCRIPT)):
        return None
    try:
        card = Card.read(folder / CARD, again=again(folder))
    except InputError:
        return None
    is_asked = card.files.keys() == set(names) and card.form == form
    return card if is_asked and _has_hashes(card) and not changed_files(folder, card) else None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the system's errors, of a folder that cannot be written or has no room, into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder} must be a folder that can be written, with room for an artefact; got: "
            f"{error.strerror or error}. {remedy(error)}, and type the same command again, or "
            "choose another folder with --out"
        ) from None


def put_in_place(staging: Path, target: Path) -> None:
    """Give a finished folder its final name; one that was there before is put back where that fails.

    Raises OSError.
    """
    before = _before(target)
    shutil.rmtree(before, ignore_errors=True)
    with held():
        if target.exists():
            target.rename(before)
        try:
            staging.rename(target)
        except OSError:
            if before.exists():
                before.rename(target)
            raise
    shutil.rmtree(before, ignore_errors=True)


def settle(target: Path) -> None:
    """Put back, or remove, the artefact that a killed export was just replacing by another one. Raises OSError."""
    before = _before(target)
    if before.exists() and not target.exists():
        before.rename(target)
    shutil.rmtree(before, ignore_errors=True)


def _before(target: Path) -> Path:
    return target.with_name(f".{target.name}.before")


def tensors(path: Path, runtime: str) -> "TensorEntries":
    """Return what a model file says of its input and output."""
    return _onnx_tensors(path) if runtime == "onnx" else _tflite_tensors(path)


def _tflite_tensors(path: Path) -> "TensorEntries":
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    from hwnas.artefacts.card import TensorEntries, TensorEntry

    def entry(detail: Any) -> TensorEntry:
        scale, zero_point = detail["quantization"]
        return TensorEntry(
            name=detail["name"],
            shape=tuple(detail["shape"].tolist()),
            dtype=np.dtype(detail["dtype"]).name,
            scale=float(scale) or None,
            zero_point=int(zero_point) if scale else None,
        )

    interpreter = Interpreter(model_path=str(path))
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    return TensorEntries(input=entry(source), output=entry(target))


def _onnx_tensors(path: Path) -> "TensorEntries":
    import onnx

    from hwnas.artefacts.card import TensorEntries, TensorEntry

    def entry(info: onnx.ValueInfoProto) -> TensorEntry:
        kind = info.type.tensor_type
        return TensorEntry(
            name=info.name,
            shape=tuple(size.dim_param or size.dim_value for size in kind.shape.dim),
            dtype=onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
            scale=None,
            zero_point=None,
        )

    graph = onnx.load(path).graph
    (source,), (target,) = graph.input, graph.output
    return TensorEntries(input=entry(source), output=entry(target))


def sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _has_hashes(card: "Card") -> bool:
    """Whether a card states the hash of each file, and of check.npz: an older one does not."""
    return card.check is not None and None not in _hashes(card).values()


def _hashes(card: "Card") -> dict[str, str | None]:
    """Return the hashes that a card states, by file name."""
    hashes = {name: entry.sha256 for name, entry in card.files.items()}
    return {**hashes, CHECK: card.check.sha256 if card.check else None, **card.texts}
