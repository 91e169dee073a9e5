"""Shared weights as an estimator: trained once for a run, taken up where they were cut off, looked at by trials."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import pretend_table
from cutting import PREDICTED, cut_off
from optuna.distributions import CategoricalDistribution

import hwnas
from hwnas.errors import BudgetError, InputError, TrainingError
from hwnas.runs.run import Run
from hwnas.searching.estimators import supernet
from hwnas.searching.loop import Searched
from hwnas.support import plugins
from hwnas.training import shared
from hwnas.training.checkpoint import write_tensors

TINY: dict[str, Any] = {
    **PREDICTED,
    "estimator": "supernet",
    "supernet": 4.0,
    "images": 32,
    "epochs": 1.0,
}


def searched(out: Path, **options: Any) -> Searched:
    return hwnas.search(out=str(out), **{**TINY, "strategy": "evolution", "trials": 6, **options})


def accuracies(out: Path) -> list[float]:
    return [record.values[0] for record in Run.open(out).trials().records if record.values]


def bank(out: Path) -> dict[str, torch.Tensor]:
    return dict(shared.read_bank(out / supernet.FILE).named_parameters())


@pytest.mark.parametrize("space", plugins.names("spaces"))
def test_every_space_is_searched_with_weights_that_are_trained_once(workplace: Path, space: str) -> None:
    if space != "pnas":
        pretend_table(workplace, space)
    result = searched(workplace / "run", space=space, strategy="random", trials=3, max_latency_ms=50.0)
    assert result.trained == 3
    assert all(0 <= accuracy <= 1 for accuracy in accuracies(workplace / "run"))
    before = (workplace / "run" / supernet.FILE).stat().st_mtime_ns
    assert searched(workplace / "run", space=space, strategy="random", trials=4, max_latency_ms=50.0).trained == 4
    assert (workplace / "run" / supernet.FILE).stat().st_mtime_ns == before


def test_a_training_that_is_cut_off_at_any_step_goes_on_as_if_it_had_not_been(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(workplace / "whole")
    cut_off(monkeypatch, shared, at=(1, 2))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            searched(workplace / "cut")
        assert not (workplace / "cut" / supernet.FILE).exists()
    searched(workplace / "cut")
    whole, cut = bank(workplace / "whole"), bank(workplace / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert accuracies(workplace / "whole") == accuracies(workplace / "cut")
    assert sorted(path.name for path in (workplace / "cut").glob("supernet*")) == [supernet.FILE]


def test_two_workers_look_with_the_weights_that_one_process_has_trained(workplace: Path) -> None:
    assert searched(workplace / "run", workers=2).trained == 6
    searched(workplace / "other", trials=1)
    ours, theirs = bank(workplace / "run"), bank(workplace / "other")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("space", "filters", "is_said"), [("pnas", (4, 6), True), ("pnas", (4,), False), ("mbconv", (4, 6), False)]
)
def test_what_is_against_shared_weights_of_many_scales_is_said(
    workplace: Path, capsys: pytest.CaptureFixture[str], space: str, filters: tuple[int, ...], is_said: bool
) -> None:
    pretend_table(workplace, space)
    searched(workplace / "run", space=space, filters=filters, trials=1)
    assert ("take --estimator training-speed" in " ".join(capsys.readouterr().err.split())) == is_said


def test_a_cap_that_leaves_no_candidate_says_so(workplace: Path) -> None:
    searched(workplace / "run", trials=1)
    settings = Run.open(workplace / "run").settings

    class Nothing:
        """Candidates of which none fits."""

        space = plugins.load("spaces", "pnas")

        def distributions(self) -> Any:
            return {**self.space.distributions(), "target": CategoricalDistribution((1.0,))}

        def fitting_targets(self, chosen: Any) -> list[float]:
            return []

    with pytest.raises(BudgetError, match="none fits the caps: raise --max-latency-ms, or take --estimator training"):
        supernet.drawn_paths(settings, Nothing(), count=4)  # type: ignore[arg-type]


def test_a_file_that_is_none_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match=r"must be shared weights that hwnas wrote.*Delete it to train them anew"):
        shared.read_bank(tmp_path / "x")


def test_weights_that_an_older_hwnas_shared_otherwise_are_not_read(tmp_path: Path) -> None:
    metadata = {"bank": json.dumps({"version": 1, "seed": 0})}
    write_tensors(tmp_path / "x", {"stem:weight:": torch.zeros(1)}, metadata=metadata)
    with pytest.raises(TrainingError, match=r"it is of version 1, and 2 is read.*Delete it to train them anew"):
        shared.read_bank(tmp_path / "x")


@pytest.mark.parametrize("estimator", ["supernet", "training-speed"])
@pytest.mark.parametrize(("options", "named"), [({"pruner": "halving"}, "--pruner"), ({"inherit": True}, "--inherit")])
def test_options_of_trainings_that_there_are_not_are_refused(
    workplace: Path, options: dict[str, Any], named: str, estimator: str
) -> None:
    with pytest.raises(InputError, match=f"{named} is for candidates that each go through a whole short training"):
        searched(workplace / "run", **{**options, "estimator": estimator})
    assert not (workplace / "run").exists()
