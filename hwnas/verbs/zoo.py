"""`hwnas zoo`: networks that hwnas itself has found and trained; lists them, or copies one out.

Each is an artefact's folder, export/zoo/NAME, and beside it NAME.toml, the file for `hwnas run` that makes it again.
One that is copied is as any artefact: `verify` and `describe` take its folder, and `run` its file.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from hwnas.errors import InputError, UnknownNameError
from hwnas.support import FolderPath, Options, commands
from hwnas.verbs._takes import takes

if TYPE_CHECKING:
    from hwnas.artefacts import Card


@dataclass(frozen=True, slots=True)
class ZooNetwork:
    """A network of the zoo, or a copy of one: its folder, its card, and the file that makes it again, if there is one.

    `card` is None where it cannot be read, and `problem` says why.
    """

    name: str
    folder: str
    config: str | None
    card: "Card | None"
    problem: str = ""


class ZooOptions(Options):
    """The options of `hwnas zoo`."""

    network: str | None = Field(
        default=None, kw_only=False, description="one of its networks, by its name; without it all are listed"
    )
    out: FolderPath | None = Field(default=None, description="a new folder, into which the network is copied")


@takes(ZooOptions)
def zoo(options: ZooOptions) -> list[ZooNetwork]:
    """List the networks that come with hwnas, found and trained by itself, or copy one into a folder.

    Raises UnknownNameError, which lists what there is, InputError for a folder that has other files, and ExportError
    for a network whose files were changed.
    """
    folders = zoo_folders()
    if options.network is None:
        if options.out is not None:
            raise InputError(
                f"--out is for one network, which must be named; got {options.out}. Type: {commands.zoo()}"
            )
        return [_network(folder) for folder in folders.values()]
    if options.network not in folders:
        raise UnknownNameError("network of the zoo", options.network, folders)
    folder = folders[options.network]
    return [_copied(folder, Path(options.out)) if options.out else _network(folder)]


def zoo_folders() -> dict[str, Path]:
    """Return the networks' folders by name: the user's own before those that hwnas ships."""
    from hwnas.artefacts import CARD
    from hwnas.device import folders

    found = {card.parent.name: card.parent for zoo in reversed(folders("export/zoo")) for card in zoo.glob(f"*/{CARD}")}
    return dict(sorted(found.items()))


def _network(folder: Path) -> ZooNetwork:
    from hwnas.artefacts import CARD, Card, again

    config = _config(folder)
    network = ZooNetwork(folder.name, str(folder), str(config) if config else None, None)
    try:
        return replace(network, card=Card.read(folder / CARD, again=again(folder)))
    except InputError as error:
        return replace(network, problem=str(error))


def _copied(folder: Path, target: Path) -> ZooNetwork:
    from hwnas.artefacts import copy_artefact

    config = _config(folder)
    card = copy_artefact(folder, target, beside=config)
    return ZooNetwork(folder.name, str(target), str(target / config.name) if config else None, card)


def _config(folder: Path) -> Path | None:
    path = folder.with_name(f"{folder.name}.toml")
    return path if path.is_file() else None
