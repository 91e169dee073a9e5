"""`hwnas search`: an Optuna study of networks under a latency cap; a trial is a network and a latency target.

Before the first one all is checked that a search could fail of later: what the runtime lacks, the table, and whether
anything fits the caps. What becomes of each trial is in hwnas/trials.py.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas import plugins, spaces
from hwnas.errors import ExportError, InputError
from hwnas.options import (
    DEFAULT_CELLS,
    DEFAULT_FILTERS,
    Cells,
    Data,
    DeviceName,
    Filters,
    Resolutions,
    Seed,
    SettingName,
    SkeletonName,
    SpaceName,
    Threads,
    names,
    shares,
)
from hwnas.progress import bar, say
from hwnas.trials import Search, Searched

if TYPE_CHECKING:
    from hwnas.costs import CostModel
    from hwnas.device import Device, Setting
    from hwnas.networks import Architecture, Scale
    from hwnas.runs import SearchSettings


def search(
    *,
    out: Annotated[str, typer.Option(help="the run's folder; an interrupted run in it goes on")],
    max_latency_ms: Annotated[float, typer.Option(help="cap on the latency on the device, in milliseconds")],
    max_mult_adds: Annotated[float | None, typer.Option(help="cap on the multiply-accumulates")] = None,
    max_parameters: Annotated[float | None, typer.Option(help="cap on the parameters")] = None,
    device: DeviceName = "host",
    setting: SettingName = None,
    threads: Threads = None,
    data: Data = "fashion-mnist",
    resolution: Resolutions = None,
    skeleton: SkeletonName = None,
    space: SpaceName = "pnas",
    cells: Cells = DEFAULT_CELLS,
    filters: Filters = DEFAULT_FILTERS,
    strategy: Annotated[
        str,
        typer.Option(
            help="search strategy: progressive, evolution, controller (RL by PPO), controller-reinforce, random, tpe, "
            "gp or nsga2"
        ),
    ] = "progressive",
    surrogate: Annotated[str, typer.Option(help="what progressive ranks candidates by")] = "lstm",
    proxies: Annotated[
        Sequence[str] | None,
        typer.Option(
            parser=names,
            metavar="NAME,...",
            help="zero-cost proxies that the surrogate reads, too, of the best few of "
            "each level: synflow, naswot, jacob-cov",
            show_default="none",
        ),
    ] = None,
    estimator: Annotated[
        str, typer.Option(help="what says how good a candidate is: training, or size, a stand-in that costs nothing")
    ] = "training",
    trials: Annotated[int, typer.Option(help="candidates to train")] = 40,
    targets: Annotated[
        Sequence[float], typer.Option(parser=shares, metavar="SHARE,...", help="latency targets, as shares of the cap")
    ] = (0.4, 0.6, 0.8, 1.0),
    proxy_filters: Annotated[float, typer.Option(help="filters in short training, as a share of the deployed")] = 0.5,
    images: Annotated[
        int | None, typer.Option(help="training images an epoch of short training", show_default="all")
    ] = 6000,
    epochs: Annotated[float, typer.Option(help="epochs of short training")] = 2,
    pruner: Annotated[
        str,
        typer.Option(help="what stops short training before its end: none, halving, hyperband or extrapolation"),
    ] = "none",
    inherit: Annotated[
        bool, typer.Option("--inherit", help="begin short training with the weights of the most alike trained network")
    ] = False,
    seed: Seed = 0,
    predicted: Annotated[
        bool, typer.Option("--predicted", help="go on without the device: latencies are predictions, and labelled so")
    ] = False,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL", show_default="a journal in the folder")
    ] = None,
    workers: Annotated[int, typer.Option(help="processes on this machine that evaluate candidates")] = 1,
) -> Searched:
    """Search for the most accurate networks inside the caps; a search that was stopped goes on from its folder.

    Raises InputError, BudgetError where nothing in the space fits, TableError and DeviceError.
    """
    from hwnas import datasets, estimators
    from hwnas.device import load_device
    from hwnas.runs import Run, make_settings

    machine = load_device(device)
    chosen = machine.setting(setting, threads=threads)
    plugins.load("strategies", strategy)
    plugins.load("surrogates", surrogate)
    plugins.load("pruners", pruner)
    for proxy in proxies or ():
        plugins.load("proxies", proxy)
    if caveat := estimators.get(estimator).CAVEAT:
        say(caveat)
    options = {
        "max_latency_ms": max_latency_ms,
        "max_mult_adds": max_mult_adds,
        "max_parameters": max_parameters,
        "trials": trials,
        "proxy_filters": proxy_filters,
        "epochs": epochs,
    }
    for name, value in {**options, "workers": workers}.items():
        if value is not None and not value > 0:
            raise InputError(f"--{name.replace('_', '-')} must be above 0; got {value:g}")
    dataset = datasets.load(data, seed=seed, resolution=resolution[0] if resolution else None)
    settings = make_settings(
        **options,
        device=device,
        setting=chosen.name,
        threads=chosen.threads,
        data=data,
        resolution=tuple(resolution) if resolution else (dataset.resolution,),
        skeleton=skeleton,
        channels=dataset.channels,
        classes=len(dataset.classes),
        validation=0.1,
        space=space,
        cells=tuple(cells),
        filters=tuple(filters),
        strategy=strategy,
        surrogate=surrogate,
        proxies=tuple(proxies or ()),
        estimator=estimator,
        targets=tuple(targets),
        images=images,
        pruner=pruner,
        inherit=inherit,
        seed=seed,
        predicted=predicted,
        storage=storage,
    )
    _check_writes(settings, chosen)
    costs = _cost_model(settings, machine, chosen)
    _check_table(costs, settings, machine, chosen)
    _check_reachable(costs, settings)
    run = Run.start(out, settings)
    with run.locked(), run.leases() as leases:
        searching = Search(run, machine, chosen, costs, leases)
        with bar("searching", trials) as progress:
            searching.run(workers, progress.at)
        return searching.result()


def work(folder: str, *, since: int) -> None:
    """Do a worker's part of the search in a run's folder; `since` is the first trial of those that it began with."""
    from hwnas.device import load_device
    from hwnas.runs import Run

    run = Run.open(folder)
    device = load_device(run.settings.device)
    costs = _cost_model(run.settings, device, device.setting(run.settings.setting, threads=run.settings.threads))
    setting = costs.table.measured_in
    with run.leases() as leases:
        Search(run, device, setting, costs, leases, since=since).evaluate()


def _check_writes(settings: "SearchSettings", setting: "Setting") -> None:
    """Raise ExportError for an operation of the space that the runtime lacks; say which others' files lack one.

    One scale of each resolution is looked at: cells and filters are no operations.
    """
    from hwnas import formats

    space = plugins.load("spaces", settings.space)
    scales = {scale.resolution: scale for scale in reversed(settings.scales)}
    graphs = [architecture.graph for scale in scales.values() for architecture in space.cover(scale)]
    formats.check_writes(setting.runtime, graphs, precision=setting.precision)
    for runtime in (name for name in plugins.names("formats") if name != setting.runtime):
        try:
            formats.check_writes(runtime, graphs)
        except ExportError as error:
            say(f"hwnas export will refuse files of the runtime {runtime}: {error}")


def _cost_model(settings: "SearchSettings", device: "Device", setting: "Setting") -> "CostModel":
    """Return the costs of the space on the device; raises TableError where there is no table."""
    from hwnas import tables
    from hwnas.costs import CostModel

    table = tables.open_table(device, setting)
    space = plugins.load("spaces", settings.space)
    return CostModel(table, settings.scales, operations=space.OPERATIONS if spaces.grows(space) else ())


def _check_table(model: "CostModel", settings: "SearchSettings", device: "Device", setting: "Setting") -> None:
    """Raise TableError where the table was measured under other conditions, or lacks entries that the space needs."""
    from hwnas import tables
    from hwnas.graph import executed
    from hwnas.measure import read_conditions

    if not settings.predicted:
        tables.check_conditions(model.table, read_conditions(device, setting).fingerprint)
    space = plugins.load("spaces", settings.space)
    command = (
        f"hwnas profile {device.name} --setting {setting.name} --space {settings.space} "
        f"--cells {','.join(map(str, settings.cells))} --filters {','.join(map(str, settings.filters))} "
        f"--resolution {','.join(map(str, settings.resolution))} --channels {settings.channels} "
        f"--classes {settings.classes}{f' --skeleton {settings.skeleton}' if settings.skeleton else ''}"
    )
    for architecture in dict.fromkeys(chain.from_iterable(map(space.cover, settings.scales))):  # each once
        model.table.require((name for name, _, _ in executed(model.lower(architecture))), command=command)


def _check_reachable(model: "CostModel", settings: "SearchSettings") -> None:
    """Raise BudgetError where not one of the space's small networks fits the caps at any scale.

    As a rule one does at the smallest scale: then the others, of which there are many to walk, need no look.
    """
    space = plugins.load("spaces", settings.space)
    smallest = model.walked([network] for network in _small_networks(space, model.scales[0]))
    if (smallest.largest(settings.budget, target_ms=settings.max_latency_ms) < 0).all():
        networks = zip(*(_small_networks(space, scale) for scale in model.scales), strict=False)
        model.check_reachable(model.walked(networks), settings.budget)


def _small_networks(space: ModuleType, scale: "Scale") -> "Iterator[Architecture]":
    """Yield the cells of one block, or the networks that cover a space whose cells do not grow."""
    if not spaces.grows(space):
        yield from space.cover(scale)
        return
    for code in space.first_level():
        yield space.architecture(space.parameters(code[None]), scale)
