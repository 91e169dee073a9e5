"""Mends a journal that was damaged in its middle: what is whole is kept, what is not is set aside in a file.

A line is whole where Optuna can apply it and the trial that it changes is still one that a search can have written.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.storages.journal._storage import JournalStorageReplayResult
from optuna.trial import FrozenTrial

from hwnas.errors import HwnasError
from hwnas.runs.study import NAME, JournalLock
from hwnas.runs.trial import TrialRecord
from hwnas.support import check_nesting, parse_json, write_bytes

DAMAGED = (  # what Optuna raises of records that it did not write
    HwnasError,
    KeyError,
    TypeError,
    ValueError,
    AssertionError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
)
_CREATE_STUDY, _CREATE_TRIAL = 0, 4  # Optuna's codes
_STUDY = (NAME, [2, 1])  # accuracy up, latency down
_BY = "mended"


@dataclass(frozen=True, slots=True)
class Mended:
    """The numbers of the lines that were set aside, from 1 on, and the file that keeps them."""

    lines: tuple[int, ...]
    kept_in: Path


def mend_journal(path: Path) -> Mended | None:
    """Set a journal's damaged lines aside; None where there are none. Raises OSError.

    Where the line is lost that begins the study, or a trial of which there is more, it is written anew.
    """
    with JournalLock(path):
        lines = path.read_bytes().splitlines(keepends=True)
        sorted_out = _Sorting().sort(lines)
        damaged = {number: lines[number] for number in sorted(sorted_out.damaged)}
        if not damaged:
            return None
        kept_in = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
        write_bytes(kept_in, b"".join(damaged.values()))
        write_bytes(path, b"".join(sorted_out.kept))
    return Mended(tuple(number + 1 for number in damaged), kept_in)


@dataclass
class _Sorting:
    """Replays a journal, line by line."""

    replayed: JournalStorageReplayResult = field(default_factory=lambda: JournalStorageReplayResult(""))
    kept: list[bytes] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)
    early: dict[int, bytes] = field(default_factory=dict)  # lines of the next trial, whose own line may still come
    missing: int = 0  # lines that began a trial, and are lost

    def sort(self, lines: list[bytes]) -> "_Sorting":
        """Say of each line whether it is whole."""
        records = [_record(line) for line in lines]
        self.damaged = {number for number, record in enumerate(records) if record is None}
        begun = [record["trial_id"] for record in records if record and type(record.get("trial_id")) is int]
        creations = sum(record is not None and record["op_code"] == _CREATE_TRIAL for record in records)
        self.missing = min(max(begun, default=-1) + 1 - creations, len(self.damaged))
        for number, record in enumerate(records):
            if record is not None:
                self._take(number, lines[number], record)
        self.damaged |= self.early.keys()
        return self

    def _take(self, number: int, line: bytes, record: dict[str, Any]) -> None:
        if not self.replayed._studies and record["op_code"] != _CREATE_STUDY:
            name, directions = _STUDY
            self._write({"op_code": _CREATE_STUDY, "worker_id": _BY, "study_name": name, "directions": directions})
        if record.get("trial_id") == len(self.replayed._trials):
            if self.missing <= 0:
                self.early[number] = line
                return
            self.missing -= 1
            self._write({"op_code": _CREATE_TRIAL, "worker_id": _BY, "study_id": 0, "datetime_start": None})
        if not self._applies(record):
            self.damaged.add(number)
            return
        self.kept.append(line if line.endswith(b"\n") else line + b"\n")
        if record["op_code"] == _CREATE_TRIAL and self.early:
            early, self.early = self.early, {}
            for number_before, line_before in early.items():
                if (record_before := _record(line_before)) is not None:
                    self._take(number_before, line_before, record_before)

    def _write(self, record: dict[str, Any]) -> None:
        self._applies(record)
        self.kept.append(json.dumps(record, separators=(",", ":")).encode() + b"\n")

    def _applies(self, record: dict[str, Any]) -> bool:
        """Apply a record, unless Optuna or the search could not have written it."""
        if record["op_code"] == _CREATE_STUDY and (record.get("study_name"), record.get("directions")) != _STUDY:
            return False
        trial_id, trials = record.get("trial_id"), self.replayed._trials
        before: FrozenTrial | None = trials.get(trial_id) if type(trial_id) is int else None
        if "trial_id" in record and before is None:
            return False
        try:
            self.replayed.apply_logs([record])
            if record["op_code"] == _CREATE_TRIAL:
                trial_id = len(trials) - 1
            if type(trial_id) is int:
                TrialRecord.of(trials[trial_id])
        except DAMAGED:
            if before is not None:
                trials[before._trial_id] = before
            elif record["op_code"] == _CREATE_TRIAL and trials and type(trial_id) is int:
                self._forget_last()
            return False
        return True

    def _forget_last(self) -> None:
        """Take back a trial that was begun as none can be."""
        last = len(self.replayed._trials) - 1
        del self.replayed._trials[last]
        self.replayed._study_id_to_trial_ids[self.replayed._trial_id_to_study_id.pop(last)].remove(last)


def _record(line: bytes) -> dict[str, Any] | None:
    """Return a line's record, if it can be one."""
    try:
        value = parse_json(line.decode())
        check_nesting(value)
    except (ValueError, RecursionError):
        return None
    is_record = isinstance(value, dict) and type(value.get("op_code")) is int and value.get("study_id", 0) == 0
    return value if is_record and isinstance(value.get("worker_id"), str) else None
