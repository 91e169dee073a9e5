"""The trials of a study as records, each read once when it is finished: what is finished never changes.

A search asks again and again which network was measured, which one is taken, how many are trained. The answers are
kept, and brought up to date by what is new or was still running, so that the ten-thousandth trial costs what the
hundredth did.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import takewhile
from typing import TYPE_CHECKING

from hwnas.latency import CAPS, Measurement, TimedNetwork
from hwnas.network import Architecture
from hwnas.runs.study import Together
from hwnas.runs.trial import State, TrialRecord
from hwnas.training import Curve

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


_MOST_UNTRAINED = 100  # in a row: then a search ends


class Trials:
    """A study's trials, by their numbers; `refresh` brings them up to date."""

    def __init__(self, study: "optuna.Study", together: Together = nullcontext) -> None:
        self.study, self.together = study, together
        self.records: list[TrialRecord] = []
        self.trained_numbers: list[int] = []  # in the order in which they were seen to be finished
        self.left_out = 0
        self.curves: dict[int, Curve] = {}  # of those whose training was looked at
        self.measured = 0  # networks in all: predictions are corrected anew where this has grown
        self._unfinished: dict[int, FrozenTrial] = {}
        self._measurements: dict[tuple[str, Architecture], Measurement] = {}  # by the device, as TrialRecord names it
        self._claims: dict[Architecture, int] = {}
        self._ends: dict[int, str] = {}

    def refresh(self) -> "Trials":
        """Read what is new, and what had not been finished."""
        trials = self.study.get_trials(deepcopy=False)
        for number in [*self._unfinished, *range(len(self.records), len(trials))]:
            trial = trials[number]
            if self._unfinished.get(number) is not trial:  # Optuna's journal makes a trial that changes another object
                self._read(trial)
        return self

    def __len__(self) -> int:
        return len(self.records)

    @property
    def trained(self) -> int:
        """How many are trained."""
        return len(self.trained_numbers)

    @property
    def running(self) -> list[int]:
        """The numbers of those that are being evaluated, or were cut off."""
        return sorted(number for number in self._unfinished if self.records[number].state == "running")

    def in_state(self, state: State) -> list[TrialRecord]:
        """Return all in a state."""
        return [record for record in self.records if record.state == state]

    def take_up(self, number: int) -> "optuna.Trial":
        """Return a trial that was cut off, to be evaluated; the sampler must be the one that it is to be chosen by."""
        from optuna.trial import Trial

        return Trial(self.study, self._unfinished[number]._trial_id)

    def ended_since(self, number: int) -> str:
        """Return why the search ended with a trial of this number or a higher one, if one did."""
        return next((why for ending, why in self._ends.items() if ending >= number), "")

    def too_many_untrained(self, since: int = 0) -> list[TrialRecord]:
        """Return the latest trials from a number on, where so many in a row were not trained that the search ends."""
        latest = (self.records[number] for number in range(len(self.records) - 1, since - 1, -1))
        finished = (record for record in latest if record.state not in ("running", "waiting"))
        in_a_row = list(takewhile(lambda record: record.state != "trained", finished))
        return in_a_row if len(in_a_row) >= _MOST_UNTRAINED else []

    def caps_to_raise(self, records: Sequence[TrialRecord]) -> list[str]:
        """Return the caps, as a `Budget` names them, for which these were left out; all, where none was left out."""
        left_out = [record for record in records if record.left_out]
        over = {name for record in left_out for name in record.over}
        return [name for name in CAPS if name in over or not left_out]

    def measurement(self, network: Architecture, *, device: str = "") -> Measurement | None:
        """Return what any trial measured of a network, on the first device or on a further one, DEVICE/SETTING."""
        return self._measurements.get((device, network))

    def claim(self, network: Architecture) -> int | None:
        """Return the number of the trial that trains a network, or has trained it."""
        return self._claims.get(network)

    def measurements(self, *, before: int, device: str = "") -> list[TimedNetwork]:
        """Return the networks that trials of a lower number than `before` measured, in the order of their numbers.

        On a device beside the first: DEVICE/SETTING.
        """
        return [network for record in self.records[:before] for network in record.measured_on(device)]

    def measured_from(self, number: int) -> bool:
        """Say whether a trial of this number or a higher one has measured a network."""
        return any(record.has_measured for record in self.records[number:])

    def _read(self, trial: "FrozenTrial") -> None:
        record, number = TrialRecord.of(trial), trial.number
        earlier: TrialRecord | None = None
        if number < len(self.records):
            earlier = self.records[number]
            self.records[number] = record
        else:
            self.records.append(record)
        for device in ("", *record.further_measurements):
            for timed in record.measured_on(device)[len(earlier.measured_on(device)) if earlier else 0 :]:
                self._measurements.setdefault((device, timed.architecture), timed.measurement)
                self.measured += 1
        network = record.deployed.architecture if record.deployed else None
        if record.claimed is not None:
            self._claims.setdefault(record.claimed, number)
        elif network is not None and self._claims.get(network) == number:  # it came to nothing: another one may try
            del self._claims[network]
        if record.looks:
            self.curves[number] = record.curve
        if record.ended:
            self._ends[number] = record.ended
        if not trial.state.is_finished():
            self._unfinished[number] = trial
            return
        self._unfinished.pop(number, None)
        if record.state == "trained":
            self.trained_numbers.append(number)
        self.left_out += bool(record.left_out)
