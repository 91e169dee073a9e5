"""How well a latency table of this machine predicts whole networks that nothing was fitted to.

For each setting and space: `hwnas profile` fills a table (operators, and networks that the correction is fitted to),
then held-out random networks are timed whole in passes, as multiples of the same canary. Beside our prediction stand
the plain sum of the operators, a line fitted to Mult-Adds alone, and the noise floor: the same networks from the first
half of their rounds and from the second. Everything measured is kept in --folder; called again, it goes on.

    python benchmarks/latency.py [--quick] [--folder F] [--cases tflite-fp32-1t/pnas,...] [--networks 200]

The last line is one JSON object: {"SETTING/SPACE": {"within_5", "within_10", "rmse_ms", "spearman", "kendall",
"sum_within_10", "mult_adds_within_10", "noise_within_5", "noise_within_10", "networks", "profile_seconds", ...}}.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from hwnas import formats, plugins, spaces
from hwnas.costs import CostModel
from hwnas.device import load_device
from hwnas.latency import LatencyTable, Measurement, TimedNetwork
from hwnas.measure import time_models, write_models
from hwnas.networks import Architecture, Scale, all_scales
from hwnas.profile import profile

Array = NDArray[np.float64]
CASES = [f"{setting}/{space}" for setting in ("tflite-fp32-1t", "onnx-fp32-1t") for space in ("pnas", "mbconv")]
FILTERS = {"pnas": (8, 16, 24, 32, 40, 48), "mbconv": (8, 12, 16, 24, 32)}
ROUNDS = 8  # of each held-out network, two a pass
FITTED = 100  # networks that the correction is fitted to


@dataclass(frozen=True)
class Case:
    """One setting and space, with the choices of its scales."""

    setting: str
    space: str
    cells: tuple[int, ...]
    filters: tuple[int, ...]
    resolutions: tuple[int, ...]
    fitted: int
    networks: int

    @property
    def scales(self) -> tuple[Scale, ...]:
        smallest = Scale(self.cells[0], self.filters[0], self.resolutions[0], 10)
        return all_scales(smallest, cells=self.cells, filters=self.filters, resolutions=self.resolutions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one case, small and few: under a minute")
    parser.add_argument("--folder", type=Path, default=Path("runs/latency"))
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--networks", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.quick else options.folder
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        result = {}
        for name in CASES[:1] if options.quick else options.cases.split(","):
            setting, space = name.split("/")
            case = Case(setting, space, (1, 2, 3), FILTERS[space], (32, 64), FITTED, options.networks)
            if options.quick:
                case = Case(setting, space, (1,), (8,), (16,), 12, 24)
            result[name] = run(case)
            print(f"{name}: {json.dumps(result[name])}", file=sys.stderr)
        os.chdir("/")
    print(json.dumps(result))


def run(case: Case) -> dict[str, float]:
    started = time.monotonic()
    (profiled,) = profile(
        "host",
        setting=case.setting,
        space=case.space,
        cells=case.cells,
        filters=case.filters,
        resolution=case.resolutions,
        channels=3,
        networks=case.fitted,
    )
    seconds = time.monotonic() - started
    table = LatencyTable.read(Path(profiled.table))
    held_out = time_held_out(case)
    return {**judge(case, table, held_out), "entries": profiled.entries, "profile_seconds": round(seconds, 1)}


def architectures(case: Case) -> list[Architecture]:
    """Draw the held-out networks: a seed that no profile uses."""
    chooser, space = random.Random(1_000_003), plugins.load("spaces", case.space)
    chosen = spaces.random_parameters(space, case.networks, seed=1_000_003)
    return [space.architecture(parameters, chooser.choice(case.scales)) for parameters in chosen]


def time_held_out(case: Case) -> list[TimedNetwork]:
    """Time the held-out networks in passes of two rounds; what is in the file already is kept."""
    device = load_device("host")
    setting = device.setting(case.setting)
    path = Path(f"held-out-{case.setting}-{case.space}-{case.networks}.json")
    found = LatencyTable(path, "host", setting.model_dump(), {})
    if path.exists():
        found = LatencyTable.read(path)
    runtime = formats.get(setting.runtime)
    networks = {str(index): architecture for index, architecture in enumerate(architectures(case))}
    graphs = {name: runtime.lower(architecture.graph) for name, architecture in networks.items()}
    for turn in range(ROUNDS // 2):
        due = {name: graph for name, graph in graphs.items() if rounds_of(found.entries.get(name)) <= 2 * turn}
        with tempfile.TemporaryDirectory() as temporary:
            files = write_models(due, setting.runtime, Path(temporary))
            for timed in time_models(device, setting, files, rounds=2, attempts=1, seed=turn):
                found.entries[timed.name] = timed.measurement.after(found.entries.get(timed.name))
        found.save()
        print(f"{case.setting}/{case.space}: held-out networks, pass {turn + 1} of {ROUNDS // 2}", file=sys.stderr)
    return [TimedNetwork(networks[name].to_json(), found.entries[name]) for name in networks]


def rounds_of(measurement: Measurement | None) -> int:
    return len(measurement.rounds_ms) if measurement else 0


def judge(case: Case, table: LatencyTable, held_out: list[TimedNetwork]) -> dict[str, Any]:
    """Compare predictions with the held-out networks' measured latencies."""
    model = CostModel(table, ())
    networks = [Architecture.from_json(network.architecture) for network in held_out]
    measured = np.array([network.measurement.at(table.canary_ms) for network in held_out])
    predicted = np.array([model.predict(network).ms for network in networks])
    sums = np.array([sum(ms for _, ms in model.layer_ms(network)) for network in networks])
    fitted = [Architecture.from_json(network.architecture) for network in table.networks]
    by_mult_adds = np.polyfit(
        [network.graph.mult_adds for network in fitted],
        [network.measurement.at(table.canary_ms) for network in table.networks],
        1,
    )
    line = np.polyval(by_mult_adds, [network.graph.mult_adds for network in networks])
    halves = [[half(network.measurement, part).at(table.canary_ms) for network in held_out] for part in (0, 1)]
    return {
        "within_5": within(predicted, measured, 0.05),
        "within_10": within(predicted, measured, 0.1),
        "rmse_ms": round(float(np.sqrt(np.mean((predicted - measured) ** 2))), 4),
        "spearman": round(float(spearmanr(predicted, measured).statistic), 4),
        "kendall": round(float(kendalltau(predicted, measured).statistic), 4),
        "sum_within_10": within(sums, measured, 0.1),
        "mult_adds_within_10": within(line, measured, 0.1),
        "noise_within_5": within(np.array(halves[0]), np.array(halves[1]), 0.05),
        "noise_within_10": within(np.array(halves[0]), np.array(halves[1]), 0.1),
        "stated_error": round(model.correction.error, 4),
        "networks": len(held_out),
    }


def half(measurement: Measurement, part: int) -> Measurement:
    """Return the first or the second half of the rounds, which were taken at other minutes."""
    middle = len(measurement.rounds_ms) // 2
    chosen = slice(middle) if part == 0 else slice(middle, None)
    return Measurement(measurement.rounds_ms[chosen], canary_ms=measurement.canary_ms[chosen])


def within(predicted: Array, measured: Array, share: float) -> float:
    return round(float(np.mean(np.abs(predicted / measured - 1) <= share)), 4)


if __name__ == "__main__":
    main()
