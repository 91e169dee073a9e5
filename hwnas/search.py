"""`hwnas search`: an Optuna study of cells under a latency cap; a trial is a cell and a latency target.

For each trial the largest scale that fits the target is taken (by prediction), the network is written, put on the
device and timed whole, and, if it is inside the caps, trained for a short while at a fixed fraction of its filters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
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
    from hwnas.networks import Architecture, Scale
    from hwnas.runs import Candidate, Run, SearchSettings

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
    from hwnas import datasets
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
        targets=tuple(targets),
        images=images,
        seed=seed,
        predicted=predicted,
        storage=storage,
    )
    costs = _cost_model(settings, machine, chosen)
    costs.check_reachable(_costs_of_small_networks(settings.space, costs), settings.budget)
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
    for scale in settings.scales:
        for architecture in space.cover(scale):
            table.require((name for name, _, _ in executed(model.lower(architecture))), command=command)
    return model


def _costs_of_small_networks(name: str, model: "CostModel") -> "Costs":
    """Return the costs of all cells of one block, or of the networks that cover a space whose cells do not grow."""
    space = plugins.load("spaces", name)
    if spaces.grows(space):
        return model.of(space.first_level())
    return model.walked(zip(*(space.cover(scale) for scale in model.scales), strict=False))


class _Search:
    def __init__(self, run: "Run", device: "Device", setting: "Setting", costs: "CostModel") -> None:
        self.run_folder = run
        self.settings = run.settings
        self.device, self.setting, self.costs = device, setting, costs
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
                self.study.sampler = self._sampler(cut_off[0].number if cut_off else len(self.study.trials))
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

    def _sampler(self, number: int) -> Any:
        """Return a sampler whose random state comes from the run's seed and the trial's number alone."""
        import numpy as np

        from hwnas.strategies import Context, make_sampler

        settings = self.settings
        context = Context(
            self.space, self.costs, settings.budget, settings.targets, settings.trials, settings.surrogate
        )
        seed = int(np.random.SeedSequence((settings.seed, number)).generate_state(1)[0])
        return make_sampler(settings.strategy, context, seed=seed)

    def _evaluate(self, trial: "optuna.Trial") -> bool:
        """Bring one trial to its end; return whether it was trained."""
        from optuna.trial import TrialState

        scale = self._scale(trial)
        if scale is None or self._is_known(trial):
            self.study.tell(trial, state=TrialState.PRUNED)
            return False
        architecture = self.space.architecture(trial.params, scale)
        latency_ms = self._latency_ms(trial, architecture)
        costs = trial.user_attrs
        excesses = self.settings.budget.excesses(
            latency_ms=latency_ms, mult_adds=costs["mult_adds"], parameters=costs["parameters"]
        )
        _set_constraints(trial, excesses)
        if max(excesses.values()) > 0:
            trial.set_user_attr("left_out", "measured over the cap")
            self.study.tell(trial, state=TrialState.PRUNED)
            return False
        try:
            accuracy = self._accuracy(trial, scale)
        except TrainingError as error:
            trial.set_user_attr("left_out", str(error))
            self.study.tell(trial, state=TrialState.FAIL)
            say(f"trial {trial.number} is left out: {error}")
            return False
        self.study.tell(trial, [accuracy, latency_ms])
        say(f"trial {trial.number}: {accuracy:.4f} at {latency_ms:.3f} ms, {architecture.name}")
        return True

    def _scale(self, trial: "optuna.Trial") -> "Scale | None":
        """Choose a network and return the largest scale at which it fits its target, or nothing where not one does."""
        from hwnas.strategies import distributions

        choices = distributions(self.space, self.settings.targets)
        chosen: dict[str, Any] = {
            name: trial.suggest_categorical(name, list(choice.choices)) for name, choice in choices.items()
        }
        networks = [self.space.architecture(chosen, scale) for scale in self.settings.scales]
        costs = self.costs.walked([networks])
        target_ms = chosen["target"] * self.settings.max_latency_ms
        scale = int(costs.largest(self.settings.budget, target_ms=target_ms)[0])
        fits = scale >= 0
        at = scale if fits else int(costs.upper_ms[0].argmin())
        values: dict[str, Any] = {
            "architecture": networks[at].to_json(),
            "mult_adds": int(costs.mult_adds[0, at]),
            "parameters": int(costs.parameters[0, at]),
            "predicted_ms": float(costs.ms[0, at]),
            "predicted_error": self.costs.correction.error,
        }
        for name, value in values.items():
            trial.set_user_attr(name, value)
        if fits:
            return self.settings.scales[at]
        excesses = self.settings.budget.excesses(
            latency_ms=0.0, mult_adds=values["mult_adds"], parameters=values["parameters"]
        )
        _set_constraints(trial, {**excesses, "latency": float(costs.upper_ms[0, at]) / target_ms - 1.0})
        trial.set_user_attr("left_out", "predicted over its target at the smallest scale")
        return None

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

    def _latency_ms(self, trial: "optuna.Trial", architecture: "Architecture") -> float:
        """Return the network's latency as measured on the device now, or as predicted where that was asked for."""
        from hwnas.measure import time_network

        if self.settings.predicted:
            trial.set_user_attr("measured_ms", None)
            return float(trial.user_attrs["predicted_ms"])
        if "measured_ms" not in trial.user_attrs:
            measurement = time_network(architecture.graph, self.device, self.setting, seed=self.settings.seed)
            trial.set_user_attr("measured_rounds_ms", measurement.rounds_ms)
            trial.set_user_attr("measured_ms", measurement.ms)
        return float(trial.user_attrs["measured_ms"])

    def _accuracy(self, trial: "optuna.Trial", scale: "Scale") -> float:
        """Train the proxy for a short while and return its accuracy on the validation part."""
        from hwnas.estimators import training

        filters = max(1, round(scale.filters * self.settings.proxy_filters))
        proxy = self.space.architecture(trial.params, scale.with_filters(filters))
        checkpoint = self.run_folder.folder / "trials" / f"{trial.number:04d}.safetensors"
        settings = training.search_settings(
            epochs=self.settings.epochs, images_per_epoch=self.settings.images, seed=self.settings.seed
        )
        with bar(f"training trial {trial.number}", 1) as steps:
            estimate = training.evaluate(
                proxy,
                self.dataset_of(proxy.graph.layers[0].shape[1]),
                settings,
                checkpoint=checkpoint,
                on_progress=lambda progress: steps.at(progress.step, total=progress.steps),
            )
        checkpoint.unlink(missing_ok=True)
        for name in ("accuracy", "seconds", "images_seen"):
            trial.set_user_attr(name, getattr(estimate, name))
        trial.set_user_attr("seed", self.settings.seed)
        return estimate.accuracy


def _set_constraints(trial: "optuna.Trial", excesses: dict[str, float]) -> None:
    for name, excess in excesses.items():
        if name not in trial.constraints:
            trial.set_constraint(name, excess)
