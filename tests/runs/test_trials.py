"""Records of trials: written and read back, each read once when it is finished; and nobody else spells their names."""

import re
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

import hwnas
from hwnas.errors import InputError
from hwnas.latency import CAPS
from hwnas.latency.measurement import Measurement, TimedNetwork
from hwnas.network.architecture import Architecture
from hwnas.network.scale import Scale
from hwnas.runs.trial import Deployed, OpenTrial, ShortlyTrained, Stopped, TrialRecord
from hwnas.runs.trials import Trials
from hwnas.spaces import pnas
from hwnas.training.curves import Look

PACKAGE = Path(hwnas.__file__).parent
ATTRIBUTES = re.compile(r"user_attr|system_attr")
SPELLED = {
    *("runs/trial.py", "runs/study.py", "searching/truth.py"),
    *("searching/strategies/_plans.py", "searching/strategies/_derived.py"),
}


def network(number: int) -> Architecture:
    return pnas.architecture(pnas.parameters(pnas.first_level()[number : number + 1]), Scale(1, 4, 8, 3, 1))


def deployed(number: int) -> Deployed:
    return Deployed(network(number), mult_adds=10, parameters=20, predicted_ms=1.0, predicted_error=0.1)


def new_study() -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"])


def begin(study: optuna.Study) -> OpenTrial:
    return OpenTrial(study.ask({"target": CategoricalDistribution((0.6,))}))


def test_a_search_ends_when_a_hundred_in_a_row_are_not_trained_and_the_caps_that_they_were_over_are_known() -> None:
    study = new_study()
    trials = Trials(study)
    for number in range(101):
        assert trials.refresh().too_many_untrained() == []
        trial = begin(study)
        if number == 0:
            trial.deploy(deployed(1), excesses={}, measured_ms=1.1)
            trial.claim(0)
            trial.trained(ShortlyTrained(3.0, 100, 0.7, 0), None)
            trial.tell(0.7, 1.1)
        else:
            trial.leave_out("over --max-parameters at every scale" if number % 2 else "the same network as trial 0")
            trial.tell_left_out()
    in_a_row = trials.refresh().too_many_untrained()
    assert [record.number for record in in_a_row] == list(range(100, 0, -1))
    assert trials.too_many_untrained(since=2) == []
    assert trials.caps_to_raise(in_a_row) == ["parameters"]
    assert trials.caps_to_raise(in_a_row[::2]) == []  # others were left out, none of them for a cap
    assert trials.caps_to_raise([]) == list(CAPS)


def test_a_record_says_what_was_written() -> None:
    trial = begin(new_study())
    measurement = Measurement(((1.0, 1.1), (1.2,)), canary_ms=(0.1, 0.2))
    trial.measured(TimedNetwork(network(0), measurement))
    trial.measured(TimedNetwork(network(1), measurement))
    trial.deploy(deployed(1), excesses={"latency": -0.5}, measured_ms=1.1)
    trial.claim(3)
    trial.inherited(None)
    for look in (Look(0.25, 2.0, 1.0), Look(0.5, 1.5, 2.0), Look(0.5, 1.5, 2.5)):  # the second one again, after a kill
        trial.looked(look)
    stopped, training = Stopped(0.5, 0.7, 0.01), ShortlyTrained(3.0, 100, 0.7, 0)
    trial.trained(training, stopped)
    trial.tell(0.7, 1.1)
    record = trial.record
    assert (record.state, record.values, record.target) == ("trained", (0.7, 1.1), 0.6)
    assert (record.deployed, record.measured_ms, record.scale) == (deployed(1), 1.1, 3)
    assert [timed.architecture for timed in record.measurements] == [network(0), network(1)]
    assert {timed.measurement for timed in record.measurements} == {measurement}
    assert record.looks == (Look(0.25, 2.0, 1.0), Look(0.5, 1.5, 2.5))
    assert (record.parent_is_chosen, record.parent) == (True, None)
    assert (record.stopped, record.training) == (stopped, training)
    assert (record.candidate.stopped_after, record.candidate.measured, record.claimed) == (0.5, True, network(1))


def test_attributes_that_are_no_record_are_refused_in_words() -> None:
    study = new_study()
    study.ask().set_user_attr("stopped", {"epoch": "soon"})
    with pytest.raises(InputError, match=r"trial 0 of the study must be as `hwnas search` writes it; got: stopped\."):
        TrialRecord.of(study.get_trials()[0])


def test_what_is_finished_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    study = new_study()
    for _ in range(5):
        trial = begin(study)
        trial.deploy(deployed(0), excesses={})
        trial.tell(0.5, 1.0)
    begin(study)
    read: list[int] = []
    original = TrialRecord.of

    def of(trial: FrozenTrial) -> TrialRecord:
        read.append(trial.number)
        return original(trial)

    monkeypatch.setattr(TrialRecord, "of", of)
    trials = Trials(study).refresh()
    assert (read, trials.trained, trials.running, len(trials)) == ([0, 1, 2, 3, 4, 5], 5, [5], 6)
    read.clear()
    trials.refresh().refresh()
    assert set(read) <= {5}


def test_a_network_is_claimed_until_its_trial_is_left_out() -> None:
    study = new_study()
    trials, trial = Trials(study), begin(study)
    trial.deploy(deployed(0), excesses={})
    assert trials.refresh().claim(network(0)) is None
    trial.claim(1)
    assert trials.refresh().claim(network(0)) == 0
    trial.leave_out("the loss is nan")
    assert trials.refresh().claim(network(0)) is None
    trial.tell_left_out()
    assert (trials.refresh().left_out, trials.trained, trials.running) == (1, 0, [])


def test_measurements_are_those_of_earlier_trials_in_their_order() -> None:
    study = new_study()
    first, second = begin(study), begin(study)
    trials = Trials(study)
    for trial, number in ((second, 2), (first, 0), (first, 1)):
        trial.measured(TimedNetwork(network(number), Measurement(((1.0 + number,),))))
        trials.refresh()
    assert trials.measured == 3
    assert [timed.architecture for timed in trials.measurements(before=2)] == [network(0), network(1), network(2)]
    assert len(trials.measurements(before=1)) == 2
    assert trials.measured_from(1)
    assert not trials.measured_from(2)
    measurement = trials.measurement(network(2))
    assert measurement is not None
    assert measurement.ms == 3.0


def test_nobody_else_spells_a_studys_attributes() -> None:
    spelled = {
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if ATTRIBUTES.search(path.read_text())
    }
    assert spelled == SPELLED
