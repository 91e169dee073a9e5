"""`hwnas search`: an Optuna study of networks under a latency cap; a trial is a network and a latency target.

Before the first one all is checked that a search could fail of later: what the runtime lacks, the table, and whether
anything fits the caps. What becomes of each trial is in hwnas/trials.py.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.errors import InputError
from hwnas.searching import Search, Searched
from hwnas.support import bar, plugins, say
from hwnas.verbs._options import (
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

if TYPE_CHECKING:
    pass
from hwnas.searching import check_reachable, check_table, check_writes, costs_of_run


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
    from hwnas import datasets
    from hwnas.device import load_device
    from hwnas.runs import Run, make_settings
    from hwnas.searching.estimators import get

    machine = load_device(device)
    chosen = machine.setting(setting, threads=threads)
    plugins.load("strategies", strategy)
    plugins.load("surrogates", surrogate)
    plugins.load("pruners", pruner)
    for proxy in proxies or ():
        plugins.load("proxies", proxy)
    if caveat := get(estimator).CAVEAT:
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
    check_writes(settings, chosen)
    costs = costs_of_run(settings, machine, chosen)
    check_table(costs, settings, machine, chosen)
    check_reachable(costs, settings)
    run = Run.start(out, settings)
    with run.locked(), run.leases() as leases:
        searching = Search(run, machine, costs, leases)
        with bar("searching", trials) as progress:
            searching.run(workers, progress.at)
        return searching.result()
