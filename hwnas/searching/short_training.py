"""The short training of a search's candidates: of a proxy with fewer filters, by which accuracies are compared.

Where the settings say so it begins with the weights of a network that was trained before (as in Real et al., 2017, and
Cai et al., 2018), and a pruner looks at it and may stop it. All that is decided is kept in the trial, so that a
training that was cut off goes on as if it had not been.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.runs import curve_of
from hwnas.searching import pruners
from hwnas.searching.estimators import get
from hwnas.support import bar
from hwnas.training import Curve, Look, Progress, Watch, extrapolate

if TYPE_CHECKING:
    import optuna

    from hwnas.datasets import Dataset
    from hwnas.network import Architecture
    from hwnas.runs import Run


@dataclass(frozen=True, slots=True)
class ShortTraining:
    """Trains the proxies of a run's study; `on_step` is called at every step of a training."""

    run: "Run"
    study: "optuna.Study"
    on_step: Callable[[], None]

    def accuracy(self, trial: "optuna.Trial", proxy: "Architecture", dataset: "Dataset") -> float:
        """Train a trial's proxy and return its accuracy on the validation part, a share.

        Where the pruner stops it, that is what it would have come to, as far as its learning curve says. Raises
        TrainingError.
        """
        settings = self.run.settings
        checkpoint = self._folder / f"{trial.number:04d}.safetensors"
        with bar(f"training trial {trial.number}", 1) as steps:

            def on_progress(progress: Progress) -> None:
                self.on_step()
                steps.at(progress.step, total=progress.steps)

            estimate = get(settings.estimator).estimate(
                proxy,
                dataset,
                epochs=settings.epochs,
                images=settings.images,
                seed=settings.seed,
                checkpoint=checkpoint,
                on_progress=on_progress,
                watch=self._watch(trial),
                initial=self._parents_weights(trial, proxy),
                keep=self._weights(trial.number) if settings.inherit else None,
            )
        checkpoint.unlink(missing_ok=True)
        accuracy = self._extrapolated(trial) if estimate.stopped else estimate.accuracy
        figures = {"seconds": estimate.seconds, "images_seen": estimate.images_seen, "accuracy": accuracy}
        for name, value in {**figures, "seed": settings.seed}.items():
            trial.set_user_attr(name, value)
        return accuracy

    @property
    def _folder(self) -> Path:
        return self.run.folder / "trials"

    def _parents_weights(self, trial: "optuna.Trial", proxy: "Architecture") -> Path | None:
        """Return the weights that a proxy begins with: of the trained one with most in common, chosen once."""
        from hwnas.training import in_common

        if not self.run.settings.inherit:
            return None
        if "parent" not in trial.user_attrs:
            complete = [one.number for one in self.study.get_trials(deepcopy=False) if one.state.name == "COMPLETE"]
            kept = [number for number in complete if self._weights(number).exists()]
            common = {number: in_common(proxy, self._weights(number)) for number in kept}
            parent = max(common, key=lambda number: (common[number], number), default=None)
            trial.set_user_attr("parent", parent if parent is not None and common[parent] else None)
        parent = trial.user_attrs["parent"]
        return None if parent is None else self._weights(parent)

    def _weights(self, number: int) -> Path:
        """Return where a trained proxy's weights are kept for others."""
        return self._folder / f"{number:04d}.weights.safetensors"

    def _watch(self, trial: "optuna.Trial") -> Watch:
        """Return what looks at a trial's training, keeps the looks in the trial, and stops it as the pruner says."""
        pruner = pruners.get(self.run.settings.pruner)

        def stops(look: Look) -> bool:
            earlier = [one for one in trial.user_attrs.get("looks", []) if one["epoch"] < look.epoch]
            trial.set_user_attr("looks", [*earlier, asdict(look)])
            return pruner.stops(*self._curves(trial))

        return Watch(pruner.epochs(self.run.settings.epochs, number=trial.number), stops)

    def _curves(self, trial: "optuna.Trial") -> tuple[Curve, list[Curve]]:
        """Return a trial's learning curve, and those of all others."""
        shown = [one for one in self.study.get_trials(deepcopy=False) if one.user_attrs.get("looks")]
        curves = {one.number: curve_of(one) for one in shown}
        own = curves.pop(trial.number)
        return own, list(curves.values())

    def _extrapolated(self, trial: "optuna.Trial") -> float:
        """Return what a trial that was stopped would have come to; note how sure that is."""
        curve, others = self._curves(trial)
        found = extrapolate(curve, others)
        accuracy = min(max(found.mean, 0.0), 1.0)
        trial.set_user_attr("stopped", {"epoch": curve.looks[-1].epoch, "accuracy": accuracy, "spread": found.spread})
        return accuracy
