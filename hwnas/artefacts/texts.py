"""What an artefact says of itself, written from its card: README.md, with fragments in C++ and Kotlin, and run.py.

The fragment for microcontrollers is there once `hwnas verify` has found the file's arena.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hwnas.artefacts.hub import front_matter
from hwnas.datasets import reader_source
from hwnas.support import commands

if TYPE_CHECKING:
    from hwnas.artefacts.card import Card


def readme(card: "Card") -> str:
    """Return README.md; its fragments read the fastest TFLite file, or where there is none the ONNX file.

    On a microcontroller it is the file that was verified there, of one image at a time.
    """
    name = fragments_file(card)
    values = {
        "front_matter": front_matter(card),
        "reader": reader_source(card.data.channels),
        "verify": commands.verify(".", device="host"),
        "mediapipe": commands.export(options={"metadata": "mediapipe"}),
        "micro_name": card.micro_file if card.batch in (None, 1) else None,
    }
    return _render("export_readme.md.jinja", card=card, file_name=name, file=card.files[name], **values)


def run_script(card: "Card") -> str:
    """Return run.py, which classifies an image with numpy, Pillow and a runtime."""
    return _render("export_run.py.jinja", card=card, reader=reader_source(card.data.channels))


def fragments_file(card: "Card") -> str:
    """Return the name of the fastest TFLite file by what was measured, of the first where there is none such."""
    fitting = [name for name, entry in card.files.items() if entry.runtime == "tflite"] or list(card.files)
    return min(fitting, key=lambda name: card.files[name].measured_ms or float("inf"))


def float32(number: float) -> str:
    """Return a number as a float literal of C++ and Kotlin: 0.25f, with all digits that float32 tells apart."""
    digits = f"{number:.9g}"
    return f"{digits}f" if "." in digits or "e" in digits else f"{digits}.0f"


def resolver_name(operator: str) -> str:
    """Return an operator as MicroMutableOpResolver's methods name it: DepthwiseConv2D for DEPTHWISE_CONV_2D."""
    words = "".join(part.capitalize() for part in operator.split("_"))
    return re.sub(r"(\dd|v\d)$", lambda last: last[0].upper(), words)


def _dims(shape: Iterable[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _render(template: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hwnas.artefacts"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"repr": repr, "float32": float32, "dims": _dims, "resolver_name": resolver_name}
    text: str = environment.get_template(template).render(values)
    return text
