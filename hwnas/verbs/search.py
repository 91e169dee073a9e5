"""`hwnas search`: an Optuna study of networks under a latency cap; a trial is a network and a latency target.

Before the first one all is checked that a search could fail of later: what the runtime lacks, the table, and whether
anything fits the caps. What the table lacks is measured, by the code of `hwnas profile`. What becomes of each trial is
in hwnas/searching/loop.py, the options in hwnas/runs/settings.py.
"""

from typing import TYPE_CHECKING

from hwnas.errors import DeviceError, TableError
from hwnas.runs import SearchOptions
from hwnas.searching import (
    Lacking,
    Planned,
    Search,
    Searched,
    check_entries,
    check_estimator,
    check_length,
    check_memory,
    check_quantised,
    check_reachable,
    check_strategy,
    check_table,
    check_table_conditions,
    check_weights,
    check_writes,
    costs_of_run,
    costs_on,
    devices_of_run,
    lacking,
    memory_of_run,
)
from hwnas.support import bar, remark, say, trusting
from hwnas.verbs._takes import apply, takes
from hwnas.verbs.profile import options_of_search, profile, task_of

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.device import Device, Setting
    from hwnas.runs import CappedDevice, Run, SearchSettings


@takes(SearchOptions)
def search(options: SearchOptions) -> Searched:
    """Search for the most accurate networks inside the caps; a search that was stopped goes on from its folder.

    Raises InputError, BudgetError where nothing in the space fits, TableError and DeviceError.
    """
    from hwnas import datasets
    from hwnas.runs import trust_storage
    from hwnas.searching.estimators import get

    asked = asked_devices(options)
    resolution = options.resolution[0] if options.resolution else None
    dataset = datasets.load(
        options.data,
        seed=options.seed,
        resolution=resolution,
        background=options.transparent,
        skip_broken=options.skip_broken,
    )
    run = start_run(options, dataset)
    settings = run.settings
    is_profiled = options.profile and not options.predicted
    each = list(zip(settings.by_device, asked, strict=True))
    for alone, capped in each:
        check_writes(alone, capped.setting)
    if options.plan:
        return _planned(run, asked, dataset, is_profiled=is_profiled)
    for alone, capped in each:
        if is_profiled:
            _profile_what_is_lacking(alone, capped.machine, capped.setting, dataset)
    devices = devices_of_run(settings)
    for (alone, capped), device in zip(each, devices, strict=True):
        if not is_profiled:
            check_table(device.costs, alone, capped.machine, capped.setting)
        check_reachable(device.costs, alone, cap=device.cap if settings.further else None)
    if settings.further:
        check_reachable(costs_on(devices), settings)
    if options.storage:
        with trusting():  # whoever types it has agreed
            trust_storage(options.storage, named_by="--storage")
    dataset.check()
    if dataset.imbalance:
        remark(dataset.imbalance)
    with run.locked(), run.leases() as leases:
        if caveat := get(options.estimator).CAVEAT:
            say(caveat)  # once nothing is left to refuse
        searching = Search(run, devices, leases)
        with bar("searching", options.trials) as progress:
            searching.run(options.workers, progress.at)
        return searching.result()


def asked_devices(options: SearchOptions) -> "list[CappedDevice]":
    """Return the devices of a search with their caps; raises what `capped_devices` does."""
    from hwnas.runs import capped_devices

    return capped_devices(
        options.device, setting=options.setting, threads=options.threads, max_latency_ms=options.max_latency_ms
    )


def _planned(run: "Run", asked: "list[CappedDevice]", dataset: "Dataset", *, is_profiled: bool) -> Searched:
    """Return what a search would do; raises what it would, but for what only the device or an image can tell."""
    from hwnas.searching.estimators import accuracy_of

    settings = run.settings
    lacks = [
        _lacking(alone, capped, is_profiled=is_profiled, is_one_of_several=bool(settings.further))
        for alone, capped in zip(settings.by_device, asked, strict=True)
    ]
    if settings.further and not any(lack.lacking for lack in lacks):
        check_reachable(costs_on(devices_of_run(settings)), settings)
    plan = Planned(
        goes_on=not run.is_new,
        lacking=lacks[0].lacking,
        to_measure=lacks[0].to_measure,
        trials=settings.trials,
        trained=0 if run.is_new else run.trials().trained,
        estimator=settings.estimator,
        epochs=settings.epochs,
        images=settings.images or len(dataset.train.labels),
        further={device.name: lack for device, lack in zip(settings.further, lacks[1:], strict=True)},
    )
    return Searched(str(run.folder), accuracy_of(settings), [], 0, 0, 0, [], [], "", plan=plan)


def _lacking(
    settings: "SearchSettings", asked: "CappedDevice", *, is_profiled: bool, is_one_of_several: bool
) -> Lacking:
    """Return what a search on a device would measure first; raises what it would where that is nothing."""
    from hwnas.device.transports import check_times
    from hwnas.latency import Due, find_table, what_is_due

    table = find_table(asked.machine, asked.setting)
    if is_profiled and (reason := lacking(table, settings)):
        check_times(asked.machine)
        task = task_of(options_of_search(settings, table))
        return Lacking(reason, what_is_due(asked.machine, asked.setting, task))
    costs = costs_of_run(settings, asked.machine, asked.setting)
    if not is_profiled:
        check_entries(costs, settings)
    check_reachable(costs, settings, cap=asked.record if is_one_of_several else None)
    return Lacking("", Due())


def _profile_what_is_lacking(
    settings: "SearchSettings", machine: "Device", setting: "Setting", dataset: "Dataset"
) -> None:
    """Measure what the device's table lacks for a search, if anything; all images are looked at before.

    Raises TableError where the table was measured under other conditions, and, with the command to type later, where
    there is none and the device fails; DeviceError where it fails otherwise.
    """
    from hwnas.latency import find_table, open_table

    table = find_table(machine, setting)
    if table:
        check_table_conditions(table, settings, machine, setting)
    if not (reason := lacking(table, settings)):
        return
    dataset.check()
    say(f"{reason}: what is missing is measured first (--no-profile refuses instead)")
    try:
        profiled = apply(profile, options_of_search(settings, table))
    except DeviceError as error:
        try:
            open_table(machine, setting, command=settings.profile_command)
        except TableError as unprofiled:
            raise TableError(f"{unprofiled}. It was tried just now: {error}") from None
        raise
    for measured in profiled:
        say(f"{measured}\n{measured.steadiness}")


def start_run(options: SearchOptions, dataset: "Dataset") -> "Run":
    """Return the run of a search, of which nothing is written yet; raises InputError for what does not go together.

    A run that is taken up must have been begun with the same. All that can be known without a latency table is checked.
    """
    from hwnas.latency import as_measured
    from hwnas.runs import Run, SearchSettings

    asked = asked_devices(options)
    settings = SearchSettings.of(options, devices=[capped.record for capped in asked], dataset=dataset)
    run = Run.start(str(options.out), settings)
    check_estimator(settings)
    check_quantised(settings)
    check_strategy(settings)
    check_weights(settings, run.folder)
    check_memory(memory_of_run(settings, as_measured(asked[0].machine, asked[0].setting), lambda _: dataset), settings)
    if run.is_new:  # an older hwnas began runs with one that was of no use
        check_length(settings)
    return run
