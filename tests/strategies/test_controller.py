"""The controllers must learn, each target alike, and what they learnt must follow from the study alone."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from hwnas.searching.strategies import Context, _policy, make_sampler
from hwnas.searching.strategies._policy import Episode, Learner, Learning, Policy, Setup, learnt
from strategies.known import Known, empty_study, median_best, propose, searched

CONTROLLERS = ["controller", "controller-reinforce"]
SETUP = Setup((3, 1, 4), given=False, learning=Learning(latency_exponent=0.0, steps=2, rate=0.01))


def episodes(count: int) -> list[Episode]:
    random = np.random.default_rng(0)
    return [Episode((at % 3, 0, at % 4), float(random.random())) for at in range(count)]


@pytest.fixture(autouse=True)
def _nothing_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_policy, "_learnt", {})


@pytest.mark.slow
@pytest.mark.parametrize("strategy", CONTROLLERS)
def test_they_find_better_candidates_than_chance(strategy: str) -> None:
    assert median_best(strategy, trials=150, runs=3) > median_best("random", trials=150, runs=3) + 0.1


@pytest.mark.slow
def test_each_target_has_its_share_of_trials_and_of_the_gain() -> None:
    known = Known(6, 5, targets=(0.4, 1.0))
    trials = searched(known, "controller-reinforce", trials=150)
    for target in known.targets:
        worths = [known.worth(trial.params) for trial in trials if trial.params["target"] == target]
        assert len(worths) > 50
        assert np.mean(worths[-20:]) > np.mean(worths[:20]) + 0.2


@pytest.mark.parametrize("strategy", CONTROLLERS)
def test_a_process_that_takes_the_study_up_proposes_what_this_one_would_have(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, study = Known(), empty_study()
    for _ in range(37):
        trial = propose(study, known, strategy, trials=50)
        study.tell(trial, [known.accuracy(trial.params), known.latency_ms(trial.params)])
    waiting = study.ask()
    proposed = []
    for learnt_before in ({}, _policy._learnt):
        monkeypatch.setattr(_policy, "_learnt", learnt_before)
        sampler = make_sampler(strategy, Context(known, 50), seed=7)
        proposed.append(sampler.sample_relative(study, study.get_trials()[waiting.number], dict(known.distributions())))
    assert proposed[0] == proposed[1]


def test_a_policy_is_the_same_whether_learnt_at_once_or_step_by_step_and_whatever_torch_drew_before() -> None:
    history = episodes(24)
    at_once = learnt(SETUP, history).state_dict()
    _policy._learnt.clear()
    for count in range(25):
        torch.manual_seed(count)
        step_by_step = learnt(SETUP, history[:count])
    assert all(torch.equal(weights, at_once[name]) for name, weights in step_by_step.state_dict().items())


def test_policies_that_were_learnt_are_not_changed_by_further_trials_and_only_a_few_are_kept() -> None:
    before = learnt(SETUP, episodes(8))
    copied = {name: weights.clone() for name, weights in before.state_dict().items()}
    for count in range(16, 8 * 40, 8):
        learnt(SETUP, episodes(count))
    assert all(torch.equal(weights, copied[name]) for name, weights in before.state_dict().items())
    assert len(_policy._learnt) <= 16


def test_equal_rewards_teach_nothing_and_a_given_parameter_stays_even() -> None:
    setup = Setup((2, 3), given=True, learning=SETUP.learning)
    history = [Episode((at % 2, at % 3), 0.9 if at % 2 else 0.1) for at in range(8)]  # equal for each of the given
    assert _policy._advantages(setup, history).abs().max() < 1e-3
    better = [Episode((at % 2, at % 3), float(at % 3 == 0) + at % 2) for at in range(64)]
    each = learnt(setup, better)(torch.tensor([[0, 0]])).detach().exp()[0]
    assert each[0].tolist() == pytest.approx([0.5, 0.5, 0, 0, 0])
    assert float(each[1, 2]) > 0.5


def test_choices_are_drawn_with_the_probabilities_that_are_learnt_from() -> None:
    policy = learnt(SETUP, episodes(64))
    drawn = policy.sample(4000, torch.Generator().manual_seed(0))
    assert drawn.shape == (4000, 3)
    kinds, counts = drawn.unique(dim=0, return_counts=True)
    stated = policy.log_probabilities(kinds)[0].detach().exp()
    assert len(kinds) == 12
    assert float(stated.sum()) == pytest.approx(1, abs=1e-5)
    assert (counts / 4000 - stated).abs().max() < 0.03


def test_the_entropy_is_that_of_all_choices() -> None:
    with torch.no_grad():
        entropies: Any = Policy(SETUP).log_probabilities(torch.zeros(1, 3, dtype=torch.int64))[1]
    assert float(entropies) == pytest.approx(np.log(3) + np.log(4), abs=0.05)


@pytest.mark.parametrize(("strategy", "faster_is_better"), [("controller", True), ("controller-reinforce", False)])
def test_only_mnasnets_reward_sees_the_latency(strategy: str, faster_is_better: bool) -> None:
    study, known = empty_study(), Known()
    sampler = make_sampler(strategy, Context(known, 20), seed=0)
    rewards = []
    for latency_ms in (1.0, 2.0):
        trial = propose(study, known, "random", trials=20)
        study.tell(trial, [0.8, latency_ms])
        rewards.append(sampler._episode(study.get_trials()[-1]).reward)  # type: ignore[attr-defined]
    assert rewards[0] == pytest.approx(0.8)
    assert rewards[1] == pytest.approx(0.8 * (2**-0.07 if faster_is_better else 1))


def test_a_settled_policy_that_is_rewarded_for_what_it_thought_impossible_stays_finite() -> None:
    setup = dataclasses.replace(SETUP, learning=Learning(latency_exponent=0.0, steps=5, rate=0.01))
    learner = Learner(setup)
    with torch.no_grad():
        learner.policy._head.weight.mul_(1e4)  # a small step changes much
    last = tuple(size - 1 for size in SETUP.sizes)
    for sign in (1, 1, 1, -1, -1, -1):  # what was bad turns out to be good
        learner.recent = ()
        learner.learn([Episode(last if number % 2 else (0, 0, 0), float(sign * number)) for number in range(8)])
    assert all(torch.isfinite(weights).all() for weights in learner.policy.parameters())
