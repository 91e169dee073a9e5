"""ENAS: shared weights and a policy learn in turns before the first trial, and what the policy draws is tried."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SETTING, pretend_table
from cutting import PREDICTED, cut_off

import hwnas
from hwnas import datasets
from hwnas.device import load_device
from hwnas.errors import SharedWeightsError
from hwnas.runs import DeviceCap, SearchOptions, SearchSettings
from hwnas.runs.run import Run
from hwnas.searching.candidates import SpaceCandidates
from hwnas.searching.checks import costs_of_run
from hwnas.searching.estimators import supernet
from hwnas.searching.loop import Searched
from hwnas.searching.strategies import enas
from hwnas.searching.strategies._policy import Episode, Learner, Learning, Setup
from hwnas.support import plugins
from hwnas.training import shared

TINY: dict[str, Any] = {
    **PREDICTED,
    "strategy": "enas",
    "estimator": "supernet",
    "supernet": 6.0,
    "images": 32,
    "epochs": 1.0,
}


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the policy learn at every second step, of which there are four."""
    monkeypatch.setattr(enas, "_TURN", 2)


def searched(out: Path, **options: Any) -> Searched:
    return hwnas.search(out=str(out), **{**TINY, "trials": 2, **options})


def begun(folder: Path, **options: Any) -> Run:
    """Return a run of which nothing is done, for one trial."""
    asked = SearchOptions(out=str(folder / "run"), **{**TINY, "trials": 1, **options})
    dataset = datasets.load("npz:images.npz", seed=0)
    host = DeviceCap(device="host", setting=SETTING, threads=1, max_latency_ms=asked.max_latency_ms or 0.0)
    settings = SearchSettings.of(asked, devices=[host], dataset=dataset)
    (folder / "run").mkdir()
    return Run(folder / "run", settings)


def accuracies(out: Path) -> list[float]:
    return [record.values[0] for record in Run.open(out).trials().records if record.values]


def bank(out: Path) -> dict[str, torch.Tensor]:
    return dict(shared.read_bank(out / supernet.FILE).named_parameters())


def candidates_of(run: Run) -> SpaceCandidates:
    settings, device = run.settings, load_device("host")
    costs = costs_of_run(settings, device, device.setting(settings.setting))
    return SpaceCandidates(plugins.load("spaces", settings.space), costs, settings.budget, tuple(settings.targets))


@pytest.mark.parametrize("space", plugins.names("spaces"))
def test_weights_and_policy_of_every_space_learn(workplace: Path, space: str) -> None:
    run = begun(workplace, space=space, filters=(4,), max_latency_ms=50.0)
    pretend_table(workplace, space, filters=(4,))
    candidates, dataset = candidates_of(run), run.settings.dataset(8)
    derived = enas.derive(run, candidates, lambda resolution: dataset)
    assert len({candidates.identity(chosen) for chosen in derived}) == len(derived) == 13
    assert candidates.fits(derived).all()
    trained, untrained = bank(run.folder), shared.Bank(seed=0)
    for chosen in derived:
        networks = supernet.networks_of(run.settings, candidates.space, chosen, run.settings.scales[0])
        for network in (networks.largest, networks.architecture):
            untrained.hold(network.graph)
    assert untrained._parameters.keys() <= trained.keys()
    assert any(not torch.equal(weights, trained[name]) for name, weights in untrained.named_parameters())


def test_a_training_that_is_cut_off_at_any_step_goes_on_as_if_it_had_not_been(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(workplace / "whole")
    cut_off(monkeypatch, enas, at=(1, 3))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            searched(workplace / "cut")
        assert (workplace / "cut" / enas.CHECKPOINT).exists()
    searched(workplace / "cut")
    whole, cut = bank(workplace / "whole"), bank(workplace / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert accuracies(workplace / "whole") == accuracies(workplace / "cut")
    assert sorted(path.name for path in (workplace / "cut").glob("*.safetensors")) == [supernet.FILE]


def test_what_was_learned_is_there_until_the_study_has_what_was_derived(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("hwnas.searching.strategies._derived.keep_derived", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            searched(workplace / "run")
    steps: list[int] = []
    monkeypatch.setattr(enas.Turns, "before_step", lambda self, step, steps_: steps.append(step))
    assert searched(workplace / "run").trained == 2
    assert steps == []


def test_the_bank_is_left_to_the_estimator_that_looks_with_it_alone(workplace: Path) -> None:
    searched(workplace / "run")
    trained = (workplace / "run" / supernet.FILE).stat().st_mtime_ns
    searched(workplace / "run", trials=3)
    assert (workplace / "run" / supernet.FILE).stat().st_mtime_ns == trained
    searched(workplace / "other", estimator="size")
    assert not list((workplace / "other").glob("*.safetensors"))


def test_a_bank_that_was_deleted_is_trained_again_by_the_same_steps(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(workplace / "run")
    whole, derived = bank(workplace / "run"), Run.open(workplace / "run").trials().study.user_attrs["hwnas:derived"]
    (workplace / "run" / supernet.FILE).unlink()
    with monkeypatch.context() as patch:
        cut_off(patch, enas, at=(2,))
        with pytest.raises(KeyboardInterrupt):
            searched(workplace / "run", trials=3)
    searched(workplace / "run", trials=3)
    again = bank(workplace / "run")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert Run.open(workplace / "run").trials().study.user_attrs["hwnas:derived"] == derived
    assert sorted(path.name for path in (workplace / "run").glob("*.safetensors")) == [supernet.FILE]


def test_a_bank_that_others_trained_is_refused(workplace: Path) -> None:
    searched(workplace / "run", trials=1)
    searched(workplace / "other", strategy="random", trials=1)
    (workplace / "other" / supernet.FILE).replace(workplace / "run" / supernet.FILE)
    with pytest.raises(SharedWeightsError, match="differs in: learned by"):
        searched(workplace / "run", trials=3)


def test_the_targets_take_turns(workplace: Path) -> None:
    searched(workplace / "run", max_latency_ms=50.0, targets=(0.5, 1.0), trials=4, estimator="size")
    targets = [record.choices["target"] for record in Run.open(workplace / "run").trials().records]
    assert targets == [0.5, 1.0, 0.5, 1.0]


def test_what_does_not_fit_is_drawn_again(workplace: Path) -> None:
    run = begun(workplace)
    drawing = enas.Drawing(run.settings, candidates_of(run))
    drawing.begin()
    policy = Learner(drawing.setup).policy
    drawn = drawing.some(policy, 40, 1)
    assert len(drawn) == 40
    chosen = [drawing.coding.parameters(one.positions) for one in drawn]
    assert candidates_of(run).fits(chosen).all()
    assert drawn == drawing.some(policy, 40, 1)
    assert (
        not candidates_of(run)
        .fits([drawing.coding.parameters(row) for row in policy.sample(40, torch.Generator().manual_seed(0)).tolist()])
        .all()
    )


def test_where_no_draw_fits_candidates_are_changed_until_they_do(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enas.Drawing, "_found", lambda *_, **__: [])
    run = begun(workplace)
    drawing = enas.Drawing(run.settings, candidates_of(run))
    drawing.begin()
    drawn = drawing.some(Learner(drawing.setup).policy, 40, 1)
    assert len(drawn) == 40
    assert candidates_of(run).fits([drawing.coding.parameters(one.positions) for one in drawn]).all()


def test_a_policy_learns_what_is_rewarded(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of more blocks are worth more here; it is rewarded at each second step."""
    monkeypatch.setattr(
        enas.Turns, "_reward", lambda self, drawn, minibatches: float(len(drawn.architecture.cells["normal"].blocks))
    )
    monkeypatch.setattr(shared.Bank, "hold", lambda self, graph: [])
    monkeypatch.setattr(enas.Turns, "forward", lambda self, images: self.bank.only.expand(len(images), 3))
    monkeypatch.setattr(enas, "Bank", lambda seed: _with_one_weight(shared.Bank(seed=seed)))
    searched(workplace / "run", estimator="size", supernet=200.0, max_latency_ms=50.0, targets=(1.0,), trials=10)
    blocks = Counter(record.choices["blocks"] for record in Run.open(workplace / "run").trials().records)
    assert blocks[5] >= 8


def _with_one_weight(bank: shared.Bank) -> shared.Bank:
    bank.register_parameter("only", torch.nn.Parameter(torch.zeros(1, 3)))
    return bank


def test_what_a_learner_knows_is_one_row_of_numbers() -> None:
    setup = Setup((2, 3), given=True, learning=Learning(latency_exponent=0.0, steps=1, rate=0.02))
    whole, resumed = Learner(setup), Learner(setup)
    batches = [[Episode((at % 2, (at + batch) % 3), at / 7 + batch) for at in range(8)] for batch in range(10)]
    for batch in batches[:5]:
        whole.learn(batch)
    resumed.restore(whole.state())
    assert torch.equal(whole.state(), resumed.state())
    for batch in batches[5:]:
        whole.learn(batch)
        resumed.learn(batch)
    assert torch.equal(whole.state(), resumed.state())
    with pytest.raises((ValueError, RuntimeError)):
        Learner(Setup((2, 4), given=True, learning=setup.learning)).restore(whole.state()[:100])
