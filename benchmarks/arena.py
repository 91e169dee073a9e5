"""The arena of int8 networks in TensorFlow Lite Micro: what is predicted from the graph beside what it takes.

    python benchmarks/arena.py            # 100 random networks of pnas, mobile and mbconv, in about 3 minutes

Networks differ in space, scale and resolution, have random weights, and are written as `hwnas export` writes them.
Their arena is the smallest that tflite-micro loads them in. Beside it stands the usual guess: the largest pair of
activations and 8 bytes for each output channel of each layer.
"""

import argparse
import random
from collections.abc import Iterator
from itertools import cycle, islice

from hwnas import spaces
from hwnas.device import load_device
from hwnas.formats import tflite
from hwnas.latency import compute_models, write_models
from hwnas.network import Graph, Scale
from hwnas.support import plugins, temporary_folder

SPACES = ("pnas", "mobile", "mbconv")


def drawn(count: int, *, seed: int) -> Iterator[tuple[str, Graph]]:
    """Yield networks' names and lowered graphs."""
    chance = random.Random(seed)
    each = {name: iter(spaces.random_parameters(plugins.load("spaces", name), count, seed=seed)) for name in SPACES}
    for number, name in enumerate(islice(cycle(SPACES), count)):
        sizes = (chance.choice((1, 2)), chance.choice((4, 6, 8, 12, 16)), chance.choice((17, 24, 32, 48, 64)))
        scale = Scale(sizes[0], sizes[1], sizes[2], chance.choice((2, 10, 100)), chance.choice((1, 3)))
        architecture = plugins.load("spaces", name).architecture(next(each[name]), scale)
        yield f"{name} {number}", tflite.lower(architecture.graph)


def usual_guess(graph: Graph) -> int:
    """Return the largest pair of activations, a layer's input and output, and 8 bytes for each channel of a layer."""
    sizes = [layer.shape[0] * layer.shape[1] * layer.shape[2] for layer in graph.layers]
    pairs = [sizes[at] + sizes[source] for at, layer in enumerate(graph.layers) for source in layer.inputs]
    return max(pairs) + 8 * sum(layer.shape[0] for layer in graph.layers if layer.kind in ("conv", "linear"))


def main() -> None:
    """Print how far the predictions are off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    graphs = dict(drawn(options.networks, seed=options.seed))
    board = load_device("arduino-nano-33-ble")
    setting = board.settings[0]
    errors, guesses = {}, {}
    with temporary_folder() as folder:
        files = write_models(graphs, setting, folder)
        for name, found in compute_models(board, setting, files).items():
            assert found.arena_bytes
            errors[name] = tflite.micro_arena_bytes(graphs[name]) - found.arena_bytes
            guesses[name] = usual_guess(graphs[name]) / found.arena_bytes - 1
            if errors[name]:
                print(f"{name}: {found.arena_bytes:,} bytes, predicted {errors[name]:+,}")
    equal = sum(not error for error in errors.values())
    worst = max(map(abs, errors.values()))
    print(f"equal: {equal} of {len(errors)}; the others are at most {worst:,} bytes off")
    print(f"the usual guess is off by {min(guesses.values()):+.1%} to {max(guesses.values()):+.1%}")


if __name__ == "__main__":
    main()
