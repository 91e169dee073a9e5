"""`hwnas search`: an Optuna study of cells under a latency cap; a trial is a cell and a latency target.

For each trial the largest scale is taken whose network fits the target: predicted ones are written, put on the device
and timed whole, until it is known. That network is trained for a short while at a fixed fraction of its filters. What
was measured is kept in the trials, and corrects the predictions for later ones.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas import plugins, spaces
from hwnas.errors import InputError, TrainingError
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
    shares,
)
from hwnas.progress import bar, say

if TYPE_CHECKING:
    import optuna

    from hwnas.costs import CostModel, Costs
    from hwnas.device import Device, Setting
    from hwnas.latency import Measurement
    from hwnas.networks import Architecture, Scale
    from hwnas.runs import Candidate, Run, SearchSettings
    from hwnas.strategies._candidates import SpaceCandidates

_MOST_MEASURED = 4  # networks a trial
_MAX_PROPOSALS = 100  # in a row without one that is trained: then the search ends


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search has come to: the front by rising latency, how many trials were trained and how many left out."""

    run: str
    front: "list[Candidate]"
    trained: int
    left_out: int
    ended: str  # why, where it was before the wanted number of trials


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
    strategy: Annotated[str, typer.Option(help="search strategy: progressive, random, tpe or nsga2")] = "progressive",
    surrogate: Annotated[str, typer.Option(help="what progressive ranks candidates by")] = "mlp",
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
    seed: Seed = 0,
    predicted: Annotated[
        bool, typer.Option("--predicted", help="go on without the device: latencies are predictions, and labelled so")
    ] = False,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL", show_default="a journal in the folder")
    ] = None,
) -> Searched:
    """Search for the most accurate networks inside the caps; a search that was stopped goes on from its folder.

    Raises InputError, BudgetError where nothing in the space fits, TableError and DeviceError.
    """
    from hwnas import datasets, estimators
    from hwnas.device import load_device
    from hwnas.runs import Run, make_settings

    machine = load_device(device)
    chosen = machine.setting(setting, threads=threads)
    if strategy == "progressive" and not spaces.grows(plugins.load("spaces", space)):
        raise InputError(
            f"the strategy progressive needs a space whose cells grow, such as pnas; got {space!r}. "
            "Take --strategy tpe, nsga2 or random"
        )
    plugins.load("strategies", strategy)
    plugins.load("surrogates", surrogate)
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
    for name, value in options.items():
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
        estimator=estimator,
        targets=tuple(targets),
        images=images,
        seed=seed,
        predicted=predicted,
        storage=storage,
    )
    costs = _cost_model(settings, machine, chosen)
    _check_reachable(costs, settings)
    run = Run.start(out, settings)
    with run.locked():
        return _Search(run, machine, chosen, costs).run()


def _cost_model(settings: "SearchSettings", device: "Device", setting: "Setting") -> "CostModel":
    """Return the costs of the space on the device; raises TableError where the table does not fit or lacks entries."""
    from hwnas import tables
    from hwnas.costs import CostModel
    from hwnas.graph import executed
    from hwnas.measure import read_conditions

    table = tables.open_table(device, setting)
    if not settings.predicted:
        tables.check_conditions(table, read_conditions(device, setting).fingerprint)
    space = plugins.load("spaces", settings.space)
    model = CostModel(table, settings.scales, operations=space.OPERATIONS if spaces.grows(space) else ())
    command = (
        f"hwnas profile {device.name} --setting {setting.name} --space {settings.space} "
        f"--cells {','.join(map(str, settings.cells))} --filters {','.join(map(str, settings.filters))} "
        f"--resolution {','.join(map(str, settings.resolution))} --channels {settings.channels} "
        f"--classes {settings.classes}{f' --skeleton {settings.skeleton}' if settings.skeleton else ''}"
    )
    for architecture in dict.fromkeys(chain.from_iterable(map(space.cover, settings.scales))):  # each once
        table.require((name for name, _, _ in executed(model.lower(architecture))), command=command)
    return model


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


class _Search:
    def __init__(self, run: "Run", device: "Device", setting: "Setting", costs: "CostModel") -> None:
        self.run_folder = run
        self.settings = run.settings
        self.device, self.setting, self.table_costs = device, setting, costs
        self.costs = costs  # for the trial at hand
        self.dataset_of = cache(self.settings.dataset)  # by the resolution
        self.space = plugins.load("spaces", self.settings.space)
        self.study = run.study()

    def run(self) -> Searched:
        """Take up trials that were cut off, then ask for new ones until enough are trained."""
        from optuna.trial import Trial, TrialState

        from hwnas.strategies import ExhaustedError

        ended, in_a_row = "", 0
        with bar("searching", self.settings.trials) as searching:
            while (trained := self._count(TrialState.COMPLETE)) < self.settings.trials and not ended:
                searching.at(trained)
                cut_off = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
                number = cut_off[0].number if cut_off else len(self.study.get_trials(deepcopy=False))
                self.costs = self._corrected_costs(number)
                self.study.sampler = self._sampler(number)
                trial = Trial(self.study, cut_off[0]._trial_id) if cut_off else self.study.ask()
                try:
                    was_trained = self._evaluate(trial)
                except ExhaustedError as error:
                    self.study.tell(trial, state=TrialState.FAIL)
                    ended = str(error)
                    continue
                in_a_row = 0 if was_trained else in_a_row + 1
                if in_a_row >= _MAX_PROPOSALS:
                    ended = (
                        f"{self.settings.strategy} proposed {in_a_row} candidates in a row that are over the caps "
                        f"or known; raise --max-latency-ms, or take --strategy progressive"
                    )
        return self._result(ended)

    def _result(self, ended: str) -> Searched:
        from optuna.trial import TrialState

        from hwnas.runs import front_of

        candidates = self.run_folder.candidates()
        return Searched(
            run=str(self.run_folder.folder),
            front=front_of(candidates),
            trained=len(candidates),
            left_out=self._count(TrialState.PRUNED),
            ended=ended,
        )

    def _count(self, state: Any) -> int:
        return len(self.study.get_trials(deepcopy=False, states=(state,)))

    def _corrected_costs(self, number: int) -> "CostModel":
        """Return the costs for the trial of this number: corrected by what the trials before it measured."""
        from hwnas.runs import timed_networks

        earlier = (trial for trial in self.study.get_trials(deepcopy=False) if trial.number < number)
        return self.table_costs.corrected_by(timed_networks(earlier))

    def _sampler(self, number: int) -> Any:
        """Return a sampler whose random state comes from the run's seed and the trial's number alone."""
        import numpy as np

        from hwnas.strategies import Context, make_sampler

        settings = self.settings
        context = Context(self._candidates(), settings.trials, settings.surrogate)
        seed = int(np.random.SeedSequence((settings.seed, number)).generate_state(1)[0])
        return make_sampler(settings.strategy, context, seed=seed)

    def _candidates(self) -> "SpaceCandidates":
        """Return what can be chosen, with the costs for the trial at hand."""
        from hwnas.strategies._candidates import SpaceCandidates

        return SpaceCandidates(self.space, self.costs, self.settings.budget, self.settings.targets)

    def _evaluate(self, trial: "optuna.Trial") -> bool:
        """Bring one trial to its end; return whether it was trained."""
        from optuna.trial import TrialState

        networks, costs = self._networks(trial)
        deployed = self._deployed(trial, networks, costs)
        if deployed is None or self._is_known(trial):
            self.study.tell(trial, state=TrialState.PRUNED)
            return False
        at, latency_ms = deployed
        trial.set_user_attr("scale", at)
        trial.set_user_attr("measured_ms", None if self.settings.predicted else latency_ms)
        self._constrain(trial, excess=latency_ms / self.settings.max_latency_ms - 1.0)
        try:
            accuracy = self._accuracy(trial, self.settings.scales[at])
        except TrainingError as error:
            trial.set_user_attr("left_out", str(error))
            self.study.tell(trial, state=TrialState.FAIL)
            say(f"trial {trial.number} is left out: {error}")
            return False
        self.study.tell(trial, [accuracy, latency_ms])
        say(f"trial {trial.number}: {accuracy:.4f} at {latency_ms:.3f} ms, {networks[at].name}")
        return True

    def _networks(self, trial: "optuna.Trial") -> "tuple[list[Architecture], Costs]":
        """Choose a network; return it at every scale, with what it is predicted to cost: arrays [1, scales]."""
        candidates = self._candidates()
        chosen: dict[str, Any] = {
            name: trial.suggest_categorical(name, list(choice.choices))
            for name, choice in candidates.distributions().items()
        }
        networks = [self.space.architecture(chosen, scale) for scale in self.settings.scales]
        return networks, candidates.costs_of(chosen)

    def _deployed(
        self, trial: "optuna.Trial", networks: "list[Architecture]", costs: "Costs"
    ) -> tuple[int, float] | None:
        """Return the place of the largest scale that fits the trial's target and its latency in ms; note its network.

        Nothing is measured of what is predicted over the target at every scale, the prediction's error included.
        """
        target_ms = trial.params["target"] * self.settings.max_latency_ms
        at = int(costs.largest(self.settings.budget, target_ms=target_ms)[0])
        if at < 0:
            at = int(costs.upper_ms[0].argmin())
            self._note(trial, networks[at], costs, at)
            excess = float(costs.upper_ms[0, at]) / target_ms - 1.0
            self._leave_out(trial, "predicted over its target at the smallest scale", excess=excess)
            return None
        if not self.settings.predicted:
            return self._measured(trial, networks, costs, target_ms)
        self._note(trial, networks[at], costs, at)
        return at, float(costs.ms[0, at])

    def _measured(
        self, trial: "optuna.Trial", networks: "list[Architecture]", costs: "Costs", target_ms: float
    ) -> tuple[int, float] | None:
        """Return what `_deployed` does, by measuring some of the networks."""
        from hwnas.costs import largest_measured

        canary_ms = self.costs.table.canary_ms
        measured = self._measurements(networks)
        at = largest_measured(
            costs,
            self.settings.budget,
            measured,
            lambda place: self._measure(trial, networks[place]),
            target_ms=target_ms,
            canary_ms=canary_ms,
            most=_MOST_MEASURED - len(trial.user_attrs.get("timed", ())),
        )
        fits = at >= 0
        if not fits:
            at = min(measured, key=lambda place: measured[place].upper(canary_ms))
        self._note(trial, networks[at], costs, at)
        if fits:
            return at, measured[at].at(canary_ms)
        trial.set_user_attr("measured_ms", measured[at].at(canary_ms))
        excess = measured[at].upper(canary_ms) / target_ms - 1.0
        self._leave_out(trial, "measured over its target at every scale that was tried", excess=excess)
        return None

    def _leave_out(self, trial: "optuna.Trial", why: str, *, excess: float) -> None:
        """Note that a trial is left out, `excess` over its latency target."""
        self._constrain(trial, excess=excess)
        trial.set_user_attr("left_out", why)

    def _measurements(self, networks: "list[Architecture]") -> "dict[int, Measurement]":
        """Return what any trial measured of these networks, by their places."""
        from hwnas.runs import timed_networks

        timed = timed_networks(self.study.get_trials(deepcopy=False))
        known = {_text(network.architecture): network.measurement for network in timed}
        texts = [_text(network.to_json()) for network in networks]
        return {place: known[text] for place, text in enumerate(texts) if text in known}

    def _measure(self, trial: "optuna.Trial", network: "Architecture") -> "Measurement":
        """Time a network whole on the device now, and keep that in the trial."""
        from hwnas.latency import TimedNetwork
        from hwnas.measure import time_network

        measurement = time_network(
            network.graph, self.device, self.setting, table=self.table_costs.table, seed=self.settings.seed
        )
        timed = TimedNetwork(network.to_json(), measurement).to_json()
        trial.set_user_attr("timed", [*trial.user_attrs.get("timed", ()), timed])
        return measurement

    def _note(self, trial: "optuna.Trial", network: "Architecture", costs: "Costs", at: int) -> None:
        """Keep in the trial what its network is and was predicted to cost."""
        values: dict[str, Any] = {
            "architecture": network.to_json(),
            "mult_adds": int(costs.mult_adds[0, at]),
            "parameters": int(costs.parameters[0, at]),
            "predicted_ms": float(costs.ms[0, at]),
            "predicted_error": self.costs.correction.error,
        }
        for name, value in values.items():
            trial.set_user_attr(name, value)

    def _constrain(self, trial: "optuna.Trial", *, excess: float) -> None:
        """Tell the study how far the trial's network is from each cap, `excess` of the latency's, as a share."""
        costs = trial.user_attrs
        excesses = self.settings.budget.excesses(
            latency_ms=0.0, mult_adds=costs["mult_adds"], parameters=costs["parameters"]
        )
        for name, value in {**excesses, "latency": excess}.items():
            if name not in trial.constraints:
                trial.set_constraint(name, value)

    def _is_known(self, trial: "optuna.Trial") -> bool:
        """Say whether an earlier trial had the same network."""
        same = trial.user_attrs["architecture"]
        for other in self.study.get_trials(deepcopy=False):
            if (
                other.number < trial.number
                and other.user_attrs.get("architecture") == same
                and "left_out" not in other.user_attrs
            ):
                trial.set_user_attr("left_out", f"the same network as trial {other.number}")
                return True
        return False

    def _accuracy(self, trial: "optuna.Trial", scale: "Scale") -> float:
        """Train the proxy for a short while and return its accuracy on the validation part."""
        from hwnas import estimators

        settings = self.settings
        filters = max(1, round(scale.filters * settings.proxy_filters))
        proxy = self.space.architecture(trial.params, scale.with_filters(filters))
        checkpoint = self.run_folder.folder / "trials" / f"{trial.number:04d}.safetensors"
        with bar(f"training trial {trial.number}", 1) as steps:
            estimate = estimators.get(settings.estimator).estimate(
                proxy,
                self.dataset_of(proxy.graph.layers[0].shape[1]),
                epochs=settings.epochs,
                images=settings.images,
                seed=settings.seed,
                checkpoint=checkpoint,
                on_progress=lambda progress: steps.at(progress.step, total=progress.steps),
            )
        checkpoint.unlink(missing_ok=True)
        for name in ("accuracy", "seconds", "images_seen"):
            trial.set_user_attr(name, getattr(estimate, name))
        trial.set_user_attr("seed", settings.seed)
        return estimate.accuracy


def _text(architecture: dict[str, Any]) -> str:
    """Return an architecture's JSON as one text, equal for equal ones: what is read back has lists for tuples."""
    return json.dumps(architecture, sort_keys=True)
