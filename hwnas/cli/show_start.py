"""Prints what `hwnas doctor` and `hwnas init` return: what a newcomer types first."""

from typing import TYPE_CHECKING

from hwnas.errors import printable

if TYPE_CHECKING:
    from hwnas.verbs._installed import Check
    from hwnas.verbs.doctor import Diagnosis
    from hwnas.verbs.init import RunFile


def show_diagnosis(diagnosis: "Diagnosis") -> None:
    """Print a line for each thing that was looked at, with what to type, and whether a run can be done."""
    width = max(len(check.about) for check in diagnosis.checks)
    for check in diagnosis.checks:
        print(printable(f"{check.state:<6}  {check.about:<{width}}  {check.words}"))
        if check.next:
            print(printable(f"{'':<6}  {'':<{width}}  type: {check.next}"))
    if diagnosis.runs_here:
        print(f"a run on this machine can be done. next: {diagnosis.next}")
    else:
        print(f"a run on this machine cannot be done: {_broken(diagnosis)}. When that is mended: {diagnosis.next}")


def _broken(diagnosis: "Diagnosis") -> str:
    """Return what a run needs and has not got."""

    def stops(check: "Check") -> bool:
        return check.needed and check.state == "broken"

    return ", ".join(dict.fromkeys(check.about for check in filter(stops, diagnosis.checks)))


def show_run_file(written: "RunFile") -> None:
    """Print where a run's file is, and what to type next."""
    print(f"{written.path}: a run into {written.out}")
    print(f"next: {written.next}")
