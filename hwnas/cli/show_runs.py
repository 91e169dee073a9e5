"""Prints what a run's verbs return: search, train, export, report and run itself; and what bench does."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.cli.show import in_kib, print_table
from hwnas.cli.show_tables import print_profiled
from hwnas.errors import printable
from hwnas.support import commands, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwnas.artefacts import Card, Exported, FileEntry
    from hwnas.benching import Benched
    from hwnas.runs import Candidate
    from hwnas.searching import Planned, Searched
    from hwnas.verbs.report import Reported
    from hwnas.verbs.run import Ran
    from hwnas.verbs.train import TrainedWinner
    from hwnas.verbs.zoo import ZooNetwork


def show_searched(searched: "Searched") -> None:
    """Print the front, what became of the other candidates, and what to type next; or what would be done."""
    if searched.plan:
        _show_planned(searched.run, searched.plan)
        return
    rows = [
        [
            str(c.trial),
            f"{c.accuracy:.4f}" + ("" if c.fp32_accuracy is None else f" (fp32 {c.fp32_accuracy:.4f})"),
            "" if c.balanced_accuracy is None else f"{c.balanced_accuracy:.4f}",
            *_latencies(c),
            f"{c.mult_adds / 1e6:.2f}",
            f"{c.parameters / 1e3:.0f}",
            in_kib(c.file_bytes),
            in_kib(c.arena_bytes),
            c.architecture.name,
        ]
        for c in searched.front
    ]
    devices = list(searched.front[0].latencies) if searched.front else []
    tools = dict.fromkeys(c.estimated_by for c in searched.front if c.estimated_by)
    estimated = f" (estimated by {', '.join(tools)})" if tools else ""
    columns = [
        "trial",
        f"accuracy ({searched.accuracy_of})",
        "balanced",
        *([f"ms on {name}" for name in devices] + ["share of a cap"] if devices else [f"latency ms{estimated}"]),
        "predicted ms",
        "Mult-Adds M",
        "params k",
        "file KiB",
        "arena KiB",
        "network",
    ]
    print_table(columns, rows, title=f"{searched.run}: the front of {counted(searched.trained, 'trained candidate')}")
    stopped = f" ({searched.stopped} of them stopped early)" if searched.stopped else ""
    why = "over a cap, known, or leaving too much of one unused"
    print(f"{searched.trained} trained{stopped}, {searched.left_out} left out ({why})")
    if searched.predicted:
        print(_untimed(searched))
    for line in (*searched.spaces, *searched.surrogate):
        print(line)
    if searched.ended:
        print(f"ended early: {searched.ended}")
    if searched.front:
        print(f"next: {commands.train(searched.run)}")


def _latencies(candidate: "Candidate") -> list[str]:
    """Return the latency as it is known best, on several devices each and the largest share of a cap; as predicted."""
    devices = [candidate.on(name) for name in candidate.latencies] or [candidate]
    marks = [
        f"{on.latency_ms:.3f}"
        + ("" if on.measured else " (predicted)")
        + (f" ({on.how})" if on.estimated_by and len(devices) > 1 else "")
        for on in devices
    ]
    share = [] if candidate.cap_share is None else [f"{candidate.cap_share:.1%}"]
    return [*marks, *share, ", ".join(f"{on.predicted_ms:.3f}" for on in devices)]


def _show_planned(run: str, plan: "Planned") -> None:
    """Print what a search would do."""
    print(f"{run}: {'the run that is there goes on' if plan.goes_on else 'a new run'}; nothing was measured or written")
    print(f"to measure first: {plan.to_measure} ({plan.lacking})" if plan.lacking else "the table has all: no profile")
    for name, lack in plan.further.items():
        print(
            f"{name}: to measure first: {lack.to_measure} ({lack.lacking})" if lack.lacking else f"{name}: no profile"
        )
    done = f", {plan.trained} of them done" if plan.trained else ""
    training = f", {counted(plan.epochs, 'epoch')} of {counted(plan.images, 'image')} each"
    print(
        f"then {counted(plan.trials, 'candidate')} in all{done}, by the estimator {plan.estimator}"
        f"{training if plan.estimator == 'training' else ''}"
    )


def _untimed(searched: "Searched") -> str:
    """Say of how many the latency is a prediction, which stands behind `about`, and why."""
    if searched.predicted == searched.trained:
        return "none was timed on the device: latencies (about so many ms) are predictions"
    return (
        f"{searched.predicted} of them not timed on the device, as one that was is as accurate and no slower: theirs "
        "(about so many ms) are predictions"
    )


def show_winners(winners: "list[TrainedWinner]") -> None:
    """Print how the winners did on the test set, where they are, and what to type next."""
    rows = [
        [
            str(w.trial),
            f"{w.test_accuracy:.2%}" + ("" if w.int8_accuracy is None else f" (int8 {w.int8_accuracy:.2%})"),
            "unknown" if w.balanced_accuracy is None else f"{w.balanced_accuracy:.2%}",
            f"{w.mult_adds / 1e6:.2f}",
            f"{w.parameters / 1e3:.0f}",
            f"{w.seconds:.0f}",
            w.folder,
        ]
        for w in winners
    ]
    columns = ["balanced", "Mult-Adds M", "params k", "seconds", "files"]
    if winners:
        print_table(["trial", f"accuracy ({winners[0].accuracy_of})", *columns], rows)
        run = Path(winners[0].folder).parent.parent
        print(f"next: {commands.export(run)}, then {commands.report(run)}")


def show_exported(exported: "Sequence[Exported]") -> None:
    """Print a row for each artefact, a line for each of its files, and what to type next."""
    rows = []
    are_several = len({(artefact.card.device, artefact.card.setting) for artefact in exported}) > 1
    for card in (artefact.card for artefact in exported):
        own = card.own_file
        timed = f"{own.measured_ms:.3f}{_estimated(own)}" if own and own.measured_ms else "no"
        rows.append(
            [
                card.run if card.trial is None else str(card.trial),
                *([f"{card.device}/{card.setting}"] if are_several else []),
                "no" if card.accuracy.test is None else f"{card.accuracy.test:.2%}",
                f"{card.mult_adds / 1e6:.2f}",
                f"{card.parameters / 1e3:.0f}",
                "no" if card.predicted_ms is None else f"{card.predicted_ms:.3f} ± {card.predicted_error:.0%}",
                timed,
                "no" if card.cap_ms is None else f"{card.cap_ms:g}",
            ]
        )
    accuracies = ", ".join(dict.fromkeys(artefact.card.accuracy_of for artefact in exported))
    columns = ["Mult-Adds M", "params k", "predicted ms", "latency ms", "cap ms"]
    print_table(["trial", *["device"] * are_several, f"accuracy ({accuracies})", *columns], rows)
    for artefact in exported:
        card = artefact.card
        for name, file in card.files.items():
            each = f" an image, of a batch of {card.batch}," if card.batch else ""
            ms = f"{file.measured_ms or 0.0:.3f} ms{each}{_estimated(file)}"
            timed = f"{ms} in {file.setting}" if file.measured_ms else "not timed"
            ran = f" {file.placement}" if file.placement else ""
            arena = "" if file.arena_bytes is None else f", arena {in_kib(file.arena_bytes)} KiB"
            size = f"{file.bytes / 1024:.0f} KiB{arena}"
            print(f"{artefact.folder}/{name}: {size}, {timed}{ran}{_accuracy(card, file)}")
            for rewrite, entry in file.rewrites.items():
                times = f": {entry.with_ms:.3f} ms instead of {entry.without_ms:.3f} ms" if entry.is_timed else ""
                ratio = f" ({entry.ratio:.2f})" if entry.is_timed else ""
                print(f"  {rewrite} in {counted(entry.layers, 'layer')}{times}{ratio}")
        print(f"next: {_verify(artefact)}")


def _verify(artefact: "Exported") -> str:
    """Return the command that checks an artefact: on its device, or here where that one does not compute, and why."""
    from hwnas.device import load_device
    from hwnas.device.transports import runs_python

    device = artefact.card.device
    if runs_python(load_device(device)):
        return str(commands.verify(artefact.folder, device=device))
    return f"{commands.verify(artefact.folder, device='host')}; {device} has no Python to check the files on"


def _estimated(file: "FileEntry") -> str:
    """Return who estimated a file's latency, where it was not measured."""
    return "" if file.how == "measured" else f" ({file.how})"


def _accuracy(card: "Card", file: "FileEntry") -> str:
    """Return how accurate a file of reduced precision is: one of fp32 is as the network, and random weights are not."""
    if file.accuracy is None or not card.is_trained:
        return ""
    tuned = file.fine_tuning
    how = f", fine-tuned, as it had lost {tuned.lost_before:.2%}" if tuned and tuned.kept else ""
    return f"; accuracy (exported file) {file.accuracy:.2%}, {file.agreement:.1%} of PyTorch's classes{how}"


def show_zoo(networks: "list[ZooNetwork]") -> None:
    """Print the zoo's networks, where they are, and what to type next."""
    if not networks:
        print(
            "the zoo is empty: a network of it is an artefact's folder, export/zoo/NAME, beside NAME.toml, the file "
            f"that makes it again ({commands.run('NAME.toml')})"
        )
    cards = [(network.name, network.card) for network in networks if network.card]
    columns = ["network", "accuracy (long training)", "data", "latency ms", "setting", "of", "Mult-Adds M", "params k"]
    if cards:
        print_table([*columns, "files KiB"], [_zoo_row(name, card) for name, card in cards])
    for network in networks:
        print(printable(f"{network.name}: {network.problem or network.folder}"))
    if len(networks) == len(cards) == 1:
        print(f"next: {commands.verify(networks[0].folder, device='host')}")
    elif cards:
        print(f"next: {commands.zoo('NAME', out='DIR')}, then {commands.verify('DIR', device='host')}")


def _zoo_row(name: str, card: "Card") -> list[str]:
    own = card.own_file
    return [
        name,
        "no" if card.accuracy.test is None else f"{card.accuracy.test:.2%}",
        card.data.name,
        f"{own.measured_ms:.3f}{_estimated(own)}" if own and own.measured_ms else "no",
        card.setting,
        card.timed_on or card.device,
        f"{card.mult_adds / 1e6:.2f}",
        f"{card.parameters / 1e3:.0f}",
        in_kib(sum(file.bytes for file in card.files.values())),
    ]


def show_reported(reported: "Reported") -> None:
    """Print the paths of what was written."""
    for path in asdict(reported).values():
        print(path)


def show_ran(ran: "Ran") -> None:
    """Print what a whole run came to."""
    print_profiled(ran.profiled)
    show_reported(ran.reported)
    show_exported(ran.exported)


def show_benched(benched: "Benched") -> None:
    """Print how strategies compare, cap by cap."""
    for under in benched.caps:
        networks = counted(under.candidates, "network")
        title = f"cap {under.cap:g}: {networks}, the one that looks best has a regret of {under.floor:.2f}"
        rows = [
            [compared.strategy, str(compared.runs), evaluations]
            + [
                "" if value is None else f"{value:.3f}"
                for value in (medians.regret_seen, medians.regret, medians.hypervolume)
            ]
            + [f"{compared.ask_ms['median']:.1f}"]
            for compared in benched.compared
            if compared.cap == under.cap
            for evaluations, medians in compared.evaluations.items()
        ]
        columns = ["strategy", "runs", "evaluations", "regret seen", "regret", "hypervolume", "ms an ask"]
        print_table(columns, rows, title=title)
    ended = sum(sum(compared.ended.values()) for compared in benched.compared)
    if ended:
        print(f"{counted(ended, 'run')} ended before all evaluations: comparison.csv says why")
    print(f"{benched.out}: comparison.csv, summary.json, comparison.png, comparison.svg")
