"""Where the rewrites of a format apply."""

from typing import TYPE_CHECKING

from hwnas import formats

if TYPE_CHECKING:
    from hwnas.device import Setting
    from hwnas.network import Graph


def rewritten_layers(graph: "Graph", setting: "Setting") -> dict[str, int]:
    """Return the rewrites that a setting has and that apply to a graph, and to how many of its layers each does."""
    written = formats.get(setting.runtime, precision=setting.precision)
    whole = written.lower(graph, without=tuple(written.REWRITES))
    found = {
        name: sum(map(rewrite.applies, whole.layers))
        for name, rewrite in written.REWRITES.items()
        if setting.precision in rewrite.precisions and name not in setting.without
    }
    return {name: layers for name, layers in found.items() if layers}


def without_rewrite(setting: "Setting", name: str) -> "Setting":
    """Return a setting that has one rewrite less."""
    return setting.model_copy(update={"without": (*setting.without, name)})
