"""An artefact's folder: the SHA-256 of its files, and check.npz, on which they are checked without torch.

Export writes it, verify reads it. check.npz holds test images and what PyTorch computed of them.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.errors import ExportError, InputError
from hwnas.formats import AS_USUAL, Form, Reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hwnas.formats import Array

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
MAX_RELATIVE_ERROR = 1e-4  # of the logits in fp32; what is aimed at is 1e-5
MIN_AGREEMENT = 0.5  # in int8: below it something is broken
_AGAIN = "Type: hwnas export RUN"


@dataclass(frozen=True, slots=True)
class Checked:
    """What a file computes beside PyTorch, on the same test images; the share of these whose class it finds."""

    images: int
    max_relative_error: float
    agreement: float
    accuracy: float
    lost: float = 0.0  # of PyTorch's accuracy on them


@dataclass(frozen=True, slots=True)
class Check:
    """Test images, uint8 [n, c, h, w], with PyTorch's logits [n, classes] and the labels [n]."""

    pixels: "NDArray[np.uint8]"
    logits: "Array"
    labels: "NDArray[np.int64]"

    def images(self, card: Mapping[str, Any]) -> "NDArray[Any]":
        """Return the images as the files of a card read them, [n, c, h, w]."""
        data = card["data"]
        reading = Reading(_form(card).input, tuple(data["mean"]), tuple(data["std"]))
        return reading.read(self.pixels)

    def write(self, path: Path) -> dict[str, Any]:
        """Write the file, and return what a card says of it."""
        import numpy as np

        np.savez_compressed(path, pixels=self.pixels, logits=self.logits, labels=self.labels)
        return {"images": len(self.labels), "sha256": sha256(path)}


def read_check(folder: Path, card: Mapping[str, Any]) -> Check:
    """Return an artefact's check.npz, once its files are found to be the ones that were exported.

    Raises InputError for a folder of an older hwnas and for missing files, ExportError for files that were changed.
    """
    import zipfile

    import numpy as np

    if "check" not in card or not all("sha256" in entry for entry in card["files"].values()):
        raise InputError(
            f"{folder} must have {CHECK} and the SHA-256 of each file in {CARD}; an older hwnas exported it without. "
            f"{_AGAIN}, which writes it again"
        )
    missing = [name for name in _hashes(card) if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder} must have the files of its {CARD}; {', '.join(missing)} is not there. {_AGAIN}")
    if changed := changed_files(folder, card):
        raise ExportError(
            f"a file must have the SHA-256 that {folder / CARD} states; {', '.join(changed)} was changed since it was "
            f"exported. {_AGAIN}, which writes it again, or copy it again"
        )
    try:
        with (folder / CHECK).open("rb") as file, np.load(file) as arrays:
            return Check(arrays["pixels"], arrays["logits"], arrays["labels"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder / CHECK} must hold pixels, logits and labels; got: {error}. {_AGAIN}") from None


def changed_files(folder: Path, card: Mapping[str, Any]) -> list[str]:
    """Return the files of a card, check.npz among them, that are missing or have another hash than it states."""
    return [
        name
        for name, expected in _hashes(card).items()
        if not (folder / name).is_file() or sha256(folder / name) != expected
    ]


def whole_card(folder: Path, names: Iterable[str], form: Form = AS_USUAL) -> dict[str, Any] | None:
    """Return the card of an artefact that has these model files, of that form, all as they were exported.

    None for any other.
    """
    from hwnas.support import read_json

    if not all((folder / name).is_file() for name in (CARD, README, SCRIPT)):
        return None
    try:
        card: dict[str, Any] = read_json(folder / CARD, what="an artefact's card")
        asked = card["files"].keys() == set(names) and _form(card) == form
        whole = asked and not changed_files(folder, card)
    except (InputError, KeyError, TypeError, AttributeError):  # a broken card, or an older one
        return None
    return card if whole else None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the system's errors, of a folder that cannot be written or has no room, into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder} must be a folder that can be written, with room for an artefact; got: "
            f"{error.strerror or error}. Make room or give permission, and type `hwnas export` again, or choose "
            "another folder with --out"
        ) from None


def put_in_place(staging: Path, target: Path) -> None:
    """Give a finished folder its final name; one that was there before is put back where that fails.

    Raises OSError.
    """
    before = target.with_name(f".{target.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if target.exists():
        target.rename(before)
    try:
        staging.rename(target)
    except OSError:
        if before.exists():
            before.rename(target)
        raise
    shutil.rmtree(before, ignore_errors=True)


def compare_logits(found: "Array", wanted: "Array", labels: "NDArray[np.int64]") -> Checked:
    """Return how a file's logits compare with PyTorch's, both [n, classes], and with the labels."""
    import numpy as np

    chosen = found.argmax(1)
    accuracy, wanted_accuracy = (float((one.argmax(1) == labels).mean()) for one in (found, wanted))
    return Checked(
        images=len(labels),
        max_relative_error=float(np.abs(found - wanted).max() / (np.abs(wanted).max() or 1.0)),
        agreement=float((chosen == wanted.argmax(1)).mean()),
        accuracy=accuracy,
        lost=wanted_accuracy - accuracy,
    )


def tensors(path: Path, runtime: str) -> dict[str, dict[str, Any]]:
    """Return what a model file says of its input and output: name, shape, dtype, scale and zero point."""
    return _onnx_tensors(path) if runtime == "onnx" else _tflite_tensors(path)


def _tflite_tensors(path: Path) -> dict[str, dict[str, Any]]:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    found = {}
    for key, (detail,) in (("input", interpreter.get_input_details()), ("output", interpreter.get_output_details())):
        scale, zero_point = detail["quantization"]
        found[key] = {
            "name": detail["name"],
            "shape": detail["shape"].tolist(),
            "dtype": np.dtype(detail["dtype"]).name,
            "scale": float(scale) or None,
            "zero_point": int(zero_point) if scale else None,
        }
    return found


def _onnx_tensors(path: Path) -> dict[str, dict[str, Any]]:
    import onnx

    graph = onnx.load(path).graph
    found = {}
    for key, (info,) in (("input", graph.input), ("output", graph.output)):
        kind = info.type.tensor_type
        found[key] = {
            "name": info.name,
            "shape": [size.dim_param or size.dim_value for size in kind.shape.dim],
            "dtype": onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
            "scale": None,
            "zero_point": None,
        }
    return found


def sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _form(card: Mapping[str, Any]) -> Form:
    """Return the form of a card's files; older cards do not state it."""
    return Form(card.get("input", "normalised"), card.get("batch"))


def _hashes(card: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes that a card states, by file name."""
    hashes = {name: entry["sha256"] for name, entry in card["files"].items()}
    return {**hashes, CHECK: card["check"]["sha256"]}
