"""Times models on a device: brings them and hwnas/runner.py there, runs it, reads what comes back.

The verbs profile, search and export measure with this and nothing else.
"""

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas import formats
from hwnas.device import Device, Setting, runner
from hwnas.device.transports import check_times, kernels_of, open_transport
from hwnas.errors import InputError
from hwnas.latency.conditions import Conditions
from hwnas.latency.lines import Computed, Heard, Timed, TimesModels, computed_of, lines_of, results_of, timed_of
from hwnas.latency.measurement import Measurement
from hwnas.latency.table import LatencyTable
from hwnas.network import Architecture, Builder, Graph
from hwnas.support import plugins, temporary_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

_ATTEMPTS = 3
_REFERENCES = 8  # networks that tell how slow the device is
_LONE_ROUNDS = 12  # of a network that caps are held against


def time_models(
    device: Device,
    setting: Setting,
    models: Mapping[str, Path],
    *,
    rounds: int = 6,
    group: int = 32,
    max_spread: float = 0.1,
    attempts: int = _ATTEMPTS,
    max_wait: float = runner.Job.max_wait,
    seed: int = 0,
    pace: dict[str, float] | None = None,
    on_conditions: Callable[[Conditions], None] | None = None,
    on_wait: Callable[[float, str], None] | None = None,
) -> Iterator[Timed]:
    """Time model files (by name) on a device; yields each as soon as it is final.

    `rounds`, `group`, `max_spread`, `attempts` and `max_wait` are explained in hwnas/runner.py. `pace` is the runner's
    too: calls that share a dict, empty at first, know of one another how fast the device was. `on_conditions` is called
    with the conditions before the first model and again after the last one, `on_wait` with the seconds of each pause
    that the device is given, before it, and the reason.

    Raises InputError for a missing file and for a device whose time means nothing; DeviceError where the runner cannot
    run, stops before its end line or writes something else than its lines; and DeviceError for models that cannot be
    loaded or run, after all others came.
    """
    if min(rounds, group, attempts) < 1:
        raise InputError(f"rounds, group and attempts must be at least 1; got {rounds}, {group} and {attempts}")
    if not 0.0 <= max_wait <= 1.0:
        raise InputError(f"max_wait must be a share of the time, from 0 to 1; got {max_wait:g}")
    if models:
        check_times(device)
    with open_transport(device) as transport, temporary_folder() as folder:
        known = setting.runtime in plugins.names("formats")  # if not, the runner refuses it
        job = runner.Job(
            runtime=setting.runtime,
            canary=transport.put(_write_canary(setting.runtime, folder)) if models and known else None,
            models=[{"name": name, "path": transport.put(path)} for name, path in models.items()],
            threads=setting.threads,
            accelerator=setting.accelerator,
            kernels=kernels_of(device),
            group=group,
            rounds=rounds,
            max_spread=max_spread,
            attempts=attempts,
            seed=seed,
            max_wait=max_wait,
            pace=pace or {},
        )
        where = f"{device.name}, {setting.name}"
        with closing(lines_of(transport, job, folder)) as lines:
            heard = Heard(on_conditions, on_wait, pace if pace is not None else {}, where)
            sizes = {name: path.stat().st_size for name, path in models.items()}
            yield from results_of(
                lines,
                models,
                where=where,
                heard=heard,
                parse=lambda line: timed_of(line, sizes, where, accelerator=setting.accelerator),
            )


def compute_models(
    device: Device, setting: Setting, models: Mapping[str, Path], *, seed: int = 0, reference: bool = False
) -> dict[str, Computed]:
    """Run model files (by name) on a device, each on the inputs that the seed makes; return what they compute.

    With `reference` TFLite's reference kernels compute it, where the device's are the fastest.
    Raises InputError for a missing file and for a device without Python, and DeviceError as `time_models`.
    """
    with open_transport(device) as transport, temporary_folder() as folder:
        if isinstance(transport, TimesModels):
            raise InputError(f"outputs come from a device with Python; {device.name} ({device.transport}) has none")
        job = runner.Job(
            runtime=setting.runtime,
            models=[{"name": name, "path": transport.put(path)} for name, path in models.items()],
            threads=setting.threads,
            accelerator=setting.accelerator,
            kernels=kernels_of(device) or ("reference" if reference else ""),
            seed=seed,
            outputs=True,
        )
        where = f"{device.name}, {setting.name}"
        with closing(lines_of(transport, job, folder)) as lines:
            seen: list[Conditions] = []
            heard = Heard(seen.append, None, {})
            computed = results_of(lines, models, where=where, heard=heard, parse=lambda line: computed_of(line, where))
            return {model.name: dataclasses.replace(model, runtime=seen[0].runtime_version) for model in computed}


def read_conditions(device: Device, setting: Setting) -> Conditions:
    """Return the conditions of a device in a setting, in the time that the runner takes to start.

    Raises DeviceError where the runner cannot run there.
    """
    seen: list[Conditions] = []
    for _ in time_models(device, setting, {}, on_conditions=seen.append):
        pass
    return seen[0]


def write_models(graphs: Mapping[str, Graph], setting: Setting, folder: Path, *, seed: int = 0) -> dict[str, Path]:
    """Write lowered graphs with random weights as files for a setting; return the files by the graphs' names.

    Raises ExportError for a precision that the runtime's format does not write.
    """
    written = formats.get(setting.runtime, precision=setting.precision)
    models = {name: folder / f"{index}{written.SUFFIX}" for index, name in enumerate(graphs)}
    for name, graph in graphs.items():
        ranges = formats.made_up_ranges(graph) if setting.precision == "int8" else None
        weights = formats.random_weights(graph, seed=seed)
        file = written.write(graph, weights, ranges=ranges, precision=setting.precision, without=setting.without)
        models[name].write_bytes(file)
    return models


def _write_canary(runtime: str, folder: Path) -> Path:
    """Write the model that tells how fast a device is at the time: the same for all tables of a runtime, under 1 ms.

    It is in fp32 for int8 as well.
    """
    b = Builder((24, 32, 32))
    value = 0
    for name in ("first", "second", "third"):
        value = b.window("conv", value, name=f"{name}.depthwise", kernel=(3, 3), groups=24)
        value = b.relu(b.window("conv", value, name=name, filters=24))
    value = b.window("conv", b.add(value, 0, name="sum"), name="full", filters=32, kernel=(3, 3), stride=(2, 2))
    graph = b.finish(b.linear(b.mean(value, name="mean"), 10, name="classifier"))
    return write_models({"canary": formats.get(runtime).lower(graph)}, Setting(runtime=runtime), folder)["canary"]


def time_network(
    graph: Graph, device: Device, setting: Setting, *, table: LatencyTable | None = None, seed: int = 0
) -> Measurement:
    """Write a network with random weights as it would be exported, and time it whole: see `time_beside`."""
    with temporary_folder() as folder:
        lowered = formats.get(setting.runtime).lower(graph, without=setting.without)
        models = write_models({"network": lowered}, setting, folder, seed=seed)
        (timed,) = time_beside(table, device, setting, models, seed=seed)
    return timed.measurement


def time_beside(
    table: LatencyTable | None,
    device: Device,
    setting: Setting,
    models: Mapping[str, Path],
    *,
    seed: int = 0,
    on_conditions: Callable[[Conditions], None] | None = None,
) -> list[Timed]:
    """Time a few model files that caps are held against, beside networks whose latency the table of the setting knows.

    How much slower those are than in the table says how slow the device is in each round, better than a canary: the
    canaries of what is returned are as if the table's had told it. A table with few networks leaves that to the canary.
    `on_conditions` is that of `time_models`.
    """
    references = _references(table) if table else {}
    with temporary_folder() as folder:
        written = formats.get(setting.runtime)
        lowered = {
            name: written.lower(network.graph, without=setting.without) for name, (network, _) in references.items()
        }
        files = {**models, **write_models(lowered, setting, folder, seed=seed)}
        timings = time_models(
            device,
            setting,
            files,
            rounds=_LONE_ROUNDS,
            group=len(files),
            attempts=1 if references else _ATTEMPTS,  # once: so that all have the same rounds
            seed=seed,
            on_conditions=on_conditions,
        )
        timed = {model.name: model for model in timings}
    if not references or table is None or table.canary_ms is None:
        return list(timed.values())
    ratios = [
        [ms / known_ms for ms in timed[name].measurement.round_medians_ms] for name, (_, known_ms) in references.items()
    ]
    canary_ms = tuple(table.canary_ms * statistics.median(one_round) for one_round in zip(*ratios, strict=True))
    return [
        dataclasses.replace(model, measurement=dataclasses.replace(model.measurement, canary_ms=canary_ms))
        for model in map(timed.__getitem__, models)
    ]


def _references(table: LatencyTable) -> "dict[str, tuple[Architecture, float]]":
    """Return networks by their JSON, with their latencies in ms: some of the faster half of those of the table."""
    steady = [
        network for network in table.networks if network.measurement.canary_ms and not network.measurement.unstable
    ]
    if len(steady) < 2 * _REFERENCES:
        return {}
    by_name = {json.dumps(network.architecture.to_json()): network for network in steady}
    known = sorted((table.stated_ms(network.measurement), name) for name, network in by_name.items())
    chosen = known[: len(known) // 2][:: len(known) // 2 // _REFERENCES][:_REFERENCES]
    return {name: (by_name[name].architecture, ms) for ms, name in chosen}
