"""Copies an artefact's folder: whole, or not at all."""

import shutil
from pathlib import Path

from hwnas.artefacts.card import Card
from hwnas.artefacts.files import CARD, CHECK, again, changed_files, put_in_place
from hwnas.errors import ExportError, InputError


def copy_artefact(folder: Path, target: Path, *, beside: Path | None = None) -> Card:
    """Copy an artefact's folder, and into it a file from `beside` it; return its card.

    What was copied already is left as it is. Raises InputError where something else is there, ExportError where the
    artefact is not as it was exported, and OSError.
    """
    card = Card.read(folder / CARD, again=again(folder))
    if changed := changed_files(folder, card):
        raise ExportError(
            f"a file must have the SHA-256 that {folder / CARD} states; {', '.join(changed)} was changed since it was "
            "exported. Install hwnas again"
        )
    if target.absolute() == Path.cwd():
        raise InputError("--out must be a folder that can be put in place whole; got the current one. Name another one")
    if target.exists() and any(target.iterdir()):
        if (target / CARD).is_file() and not changed_files(target, card):
            return card
        raise InputError(f"--out must be a new folder, or an empty one; {target} has other files. Name another one")
    staging = target.with_name(f".{target.name}.part")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        for name in (CARD, CHECK, *card.texts, *card.files):  # no bytecode of run.py, as pip writes it
            shutil.copy(folder / name, staging)
        if beside:
            shutil.copy(beside, staging)
        put_in_place(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return card
