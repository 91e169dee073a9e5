"""The short training of a search's candidates: of a proxy with fewer filters, by which accuracies are compared.

Where the settings say so it begins with the weights of a network that was trained before (as in Real et al., 2017, and
Cai et al., 2018), and a pruner looks at it and may stop it. All that is decided is kept in the trial, so that a
training that was cut off goes on as if it had not been.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import TrainingError
from hwnas.searching import estimators, pruners
from hwnas.searching.estimators import Estimate, Job
from hwnas.searching.kept_weights import KeptWeights
from hwnas.support import bar
from hwnas.training import Progress, Watch

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.device import Setting
    from hwnas.network import Architecture
    from hwnas.runs import OpenTrial, Run, Stopped, Trials
    from hwnas.training import Curve, Look


class ShortTraining:
    """Trains the proxies of a run; `on_step` is called at every step of a training.

    Accuracies are those in `int8`, a setting, if there is one.
    """

    def __init__(
        self, run: "Run", trials: "Trials", on_step: Callable[[], None], *, int8: "Setting | None" = None
    ) -> None:
        self._run, self._trials, self._on_step, self._int8 = run, trials, on_step, int8
        self._kept = KeptWeights(trials, self._weights)

    def accuracy(self, trial: "OpenTrial", proxy: "Architecture", dataset: "Dataset") -> float:
        """Train a trial's proxy and return its accuracy on the validation part, a share.

        Where the pruner stops it, that is what it would have come to in fp32, as far as its learning curve says. Raises
        TrainingError, after which there is no checkpoint left.
        """
        from hwnas.runs import ShortlyTrained

        checkpoint = self._folder / f"{trial.number:04d}.safetensors"
        try:
            estimate = self._estimate(trial, proxy, dataset, checkpoint)
        except TrainingError:
            checkpoint.unlink(missing_ok=True)
            raise
        checkpoint.unlink(missing_ok=True)
        stopped = self._extrapolated(trial) if estimate.stopped else None
        accuracy = stopped.accuracy if stopped else estimate.accuracy
        training = ShortlyTrained(
            estimate.seconds,
            estimate.images_seen,
            accuracy,
            self._run.settings.seed,
            balanced_accuracy=estimate.balanced,
            fp32_accuracy=estimate.fp32_accuracy,
        )
        trial.trained(training, stopped)
        return accuracy

    def _estimate(self, trial: "OpenTrial", proxy: "Architecture", dataset: "Dataset", checkpoint: Path) -> Estimate:
        settings = self._run.settings
        with bar(f"training trial {trial.number}", 1) as steps:

            def on_progress(progress: Progress) -> None:
                self._on_step()
                steps.at(progress.step, total=progress.steps)

            job = Job(
                epochs=settings.epochs,
                images=settings.images,
                seed=settings.seed,
                checkpoint=checkpoint,
                on_progress=on_progress,
                watch=self._watch(trial),
                initial=self._initial(trial, proxy),
                keep=self._weights(trial.number) if settings.inherit else None,
                int8=self._int8,
            )
            return estimators.get(settings.estimator).estimate(proxy, dataset, job)

    def _initial(self, trial: "OpenTrial", proxy: "Architecture") -> Path | None:
        """Return the weights that a proxy begins with: the run's, or another proxy's."""
        prepared = estimators.prepared_file(self._run.settings.estimator)
        return self._run.folder / prepared if prepared else self._parents_weights(trial, proxy)

    @property
    def _folder(self) -> Path:
        return self._run.folder / "trials"

    def _parents_weights(self, trial: "OpenTrial", proxy: "Architecture") -> Path | None:
        """Return the weights that a proxy begins with: of the trained one with most in common, chosen once."""
        if not self._run.settings.inherit:
            return None
        record = trial.record
        if not record.parent_is_chosen:
            parent = self._kept.most_in_common(proxy)
            trial.inherited(parent)
            return None if parent is None else self._weights(parent)
        return None if record.parent is None else self._weights(record.parent)

    def _weights(self, number: int) -> Path:
        """Return where a trained proxy's weights are kept for others."""
        return self._folder / f"{number:04d}.weights.safetensors"

    def _watch(self, trial: "OpenTrial") -> Watch:
        """Return what looks at a trial's training, keeps the looks in the trial, and stops it as the pruner says."""
        pruner = pruners.get(self._run.settings.pruner)

        def stops(look: "Look") -> bool:
            trial.looked(look)
            return pruner.stops(*self._curves(trial))

        return Watch(pruner.epochs(self._run.settings.epochs, number=trial.number), stops)

    def _curves(self, trial: "OpenTrial") -> "tuple[Curve, list[Curve]]":
        """Return a trial's learning curve, and those of all others."""
        self._trials.refresh()
        return trial.record.curve, [curve for number, curve in self._trials.curves.items() if number != trial.number]

    def _extrapolated(self, trial: "OpenTrial") -> "Stopped":
        """Return what a trial that was stopped would have come to, and how sure that is."""
        from hwnas.runs import Stopped
        from hwnas.training import extrapolate

        curve, others = self._curves(trial)
        expected = extrapolate(curve, others)
        return Stopped(curve.looks[-1].epoch, min(max(expected.mean, 0.0), 1.0), expected.spread)
