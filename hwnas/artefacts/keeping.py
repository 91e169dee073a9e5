"""Keeps what `hwnas verify` found for a microcontroller: in an artefact's card, and in the fragment of its README."""

from collections.abc import Mapping
from pathlib import Path

from hwnas.artefacts import texts
from hwnas.artefacts.card import Card, MicroEntry
from hwnas.artefacts.files import CARD, README, sha256
from hwnas.support import held, remedy, say, write_text


def keep_verified(folder: Path, card: Card, found: Mapping[str, MicroEntry]) -> None:
    """Write what was found of files, by name, into an artefact's card and README, and seal both.

    Where the folder cannot be written, or an older hwnas wrote it without a seal, that is said.
    """
    files = {
        name: entry.model_copy(update={"micro": found[name]}) if name in found else entry
        for name, entry in card.files.items()
    }
    if files == card.files:
        return
    if not card.texts:
        say(f"{folder} was exported by an older hwnas: its {CARD} does not keep what was verified")
        return
    changed = card.model_copy(update={"files": files})
    readme = folder / f".{README}.part"
    try:
        write_text(readme, texts.readme(changed))
        with held():  # the card states the README's hash
            changed.sealed({**card.texts, README: sha256(readme)}).write(folder / CARD)
            readme.replace(folder / README)
    except OSError as error:
        readme.unlink(missing_ok=True)
        say(f"{folder / CARD} does not keep what was verified: {error.strerror or error}. {remedy(error)}")
