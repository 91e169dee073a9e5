"""Are the winners of searches more accurate than hand-made networks of the same measured latency, trained alike?

For each cap every family of hand-made networks is made for the data (the usual adaptation to small images), and scaled
by width, depth and resolution to the largest network, in Mult-Adds, that runs within the cap: as a file of hwnas's own
exporter in its runtime on the device, in the median of several processes. Beside them are the winners of searches made
here, and of runs that there are: of a front the most accurate network that is measured to be within the cap. All are
trained by one recipe, on the same images, with each of the seeds, and tested once.

    python benchmarks/contest.py [--quick] [--folder F] [--caps 0.6,2] [--setting tflite-int8-1t] [--data folder:PATH]
        [--searches mbconv:progressive:training-speed,...] [--finalists 6] [--runs DIR,...] [--families resnet-20,...]
        [--seeds 3] [--within 2] ...

In int8 the accuracy is that of the exported file, calibrated and where need be fine-tuned as by `hwnas export`. With
--within 2 a network that is more than two points behind the best so far is trained with no further seed. What is done
is kept in --folder; called again, it goes on, and seeds, caps, families, searches and runs may be added. contest.md
there is the table that is printed, contest-CAP.png shows accuracy against latency, and `hwnas report RUN --contest
contest.json` shows both. The last line is one JSON object: {"caps": {"0.6": [{"network", "kind", "name", "ms", "share":
of the cap, "mult_adds", "parameters", "accuracy": mean, "interval": half of it, 95 %, by Student's t (null of one
seed), "accuracies", "searched": seconds of the search, with --finalists also of these and of the winner's training,
null where they are not known, "trained": seconds of the processor, median}, ...]}, "options"}, by falling accuracy.
"""

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import torch
from scipy.stats import t as student_t
from search_cost import timed

import hwnas
from hwnas import datasets, formats
from hwnas.artefacts.writing import write_checked
from hwnas.device import Device, Setting, named_device
from hwnas.errors import ExportError, InputError
from hwnas.latency import as_measured, find_table, stated_ms, time_beside
from hwnas.latency.measure import write_models
from hwnas.network import HAND_MADE, TORCHVISIONS, Architecture, Chain, adapted, resnet_9
from hwnas.pages import ContestRecord, ContestRow, pictures
from hwnas.runs import Run, front_of
from hwnas.support import bar, read_json, remark, temporary_folder, write_bytes, write_json, write_text
from hwnas.training import TrainingSettings, scores, train_network

FAMILIES: dict[str, Callable[[], Chain]] = {**HAND_MADE, **TORCHVISIONS, "resnet-9": resnet_9}
WIDTHS = tuple(0.1 * 1.07**step for step in range(65))  # to 7.6: a ResNet-20 of 8 filters is one of 0.5
EXPECTED = 40e6  # Mult-Adds a ms: where the first look is
# In all calls of a folder.
SAME = (
    "data",
    "device",
    "setting",
    "epochs",
    "batch_size",
    "learning_rate",
    "augment",
    "quick",
)  # in all calls of a folder
MADE: Final = "hand-made"
FOUND: Final = "search"


@dataclass(frozen=True)
class Contestant:
    """A network under a cap, what it takes in ms, and the seconds of the search that found it, where they are known."""

    network: str
    kind: Literal["hand-made", "search"]
    architecture: Architecture
    ms: float
    searched: float | None = None


def main() -> None:
    options = asked()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.quick else options.folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        check_same(Path("options.json"), {name: str(getattr(options, name)) for name in SAME})
        torch.set_num_threads(options.threads)
        contest = Contest(options)
        for space in dict.fromkeys(search.split(":")[0] for search in options.searches):
            contest.profile(space)  # first, as what is stated of all networks is at the table's canary
        contestants = {cap: [*contest.hand_made(cap), *contest.winners(cap)] for cap in options.caps}
        for seed in range(options.seeds):  # so that a table can be had after each
            near = [each for group in contestants.values() for each in contest.in_reach(group)]
            for each in {key_of(one.architecture): one for one in near}.values():
                contest.trained(each, seed)
            result = {f"{cap:g}": summary(cap, group, contest.records) for cap, group in contestants.items()}
            contest.write(result)
        print(Path("contest.md").read_text())
        stated = {name: str(value) for name, value in vars(options).items() if name != "folder"}
        rows = {cap: [row.to_json() for row in rows] for cap, rows in result.items()}
        print(json.dumps({"caps": rows, "options": stated}))


def asked() -> argparse.Namespace:
    def names(value: str) -> list[str]:
        return [name for name in value.split(",") if name]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few networks, hardly trained: two minutes")
    parser.add_argument("--folder", type=Path, default=Path("runs/contest"))
    parser.add_argument("--caps", type=lambda value: list(map(float, value.split(","))), default=[0.6], help="in ms")
    parser.add_argument("--data", default="fashion-mnist", help="as in `hwnas search`")
    parser.add_argument("--device", default="host")
    parser.add_argument("--setting", default="tflite-fp32-1t")
    parser.add_argument("--families", type=names, default=list(FAMILIES), help=", ".join(FAMILIES))
    parser.add_argument("--depths", type=lambda value: list(map(float, value.split(","))), default=[0.5, 1.0, 2.0, 3.0])
    parser.add_argument(
        "--resolutions",
        type=lambda value: list(map(int, value.split(","))),
        default=[],
        help="in pixels; without it the data's own and three quarters of it",
    )
    parser.add_argument("--processes", type=int, default=3, help="in which a network is timed that is to fit")
    parser.add_argument("--searches", type=names, default=[], help="space:strategy:estimator,...")
    parser.add_argument("--search-seeds", type=int, default=1)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--finalists", type=int, default=0, help="of a search, as of `hwnas train`; 0: none")
    parser.add_argument("--runs", type=names, default=[], help="folders of runs of the same data and device")
    parser.add_argument("--seeds", type=int, default=3, help="of the trainings")
    parser.add_argument(
        "--within",
        type=lambda value: float(value) / 100,
        default=1.0,
        help="points behind the best so far, from where a network has no further seed; without it all have",
    )
    parser.add_argument("--epochs", type=float, default=5.0)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--augment", action=argparse.BooleanOptionalAction, default=True, help="few epochs want none")
    parser.add_argument("--threads", type=int, default=1, help="of the trainings")
    options = parser.parse_args()
    options.runs = [str(Path(run).absolute()) for run in options.runs]  # before the folder is entered
    plugin, _, argument = options.data.partition(":")
    options.data = f"{plugin}:{Path(argument).absolute()}" if argument else plugin
    if unknown := sorted(set(options.families) - set(FAMILIES)):
        raise InputError(f"--families must be some of {', '.join(FAMILIES)}; got {', '.join(unknown)}")
    if wrong := [search for search in options.searches if search.count(":") != 2]:
        raise InputError(f"--searches must be space:strategy:estimator, as in mbconv:random:training; got {wrong[0]}")
    if options.finalists == 1:
        raise InputError("--finalists must be 0, or more than the one winner; got 1; take 6")
    if options.quick:
        options.caps, options.families, options.depths, options.resolutions = (
            [0.5],
            ["resnet-8", "mobilenet-v3-small"],
            [1.0],
            [],
        )
        options.searches, options.trials, options.processes = ["mbconv:random:size"], 2, 1
        options.seeds, options.epochs, options.batch_size = 2, 0.02, 32
    return options


def check_same(path: Path, now: dict[str, str]) -> None:
    """Raise InputError where a folder is of other options."""
    if path.exists() and read_json(path, what="options") != now:
        raise InputError(f"{path} must be of the same {', '.join(SAME)}; give another --folder")
    write_json(path, now)


class Clock:
    """What networks take on a device, each time in a process of its own; all of it kept in a file."""

    def __init__(self, path: Path, measure: Callable[[Architecture], float]) -> None:
        self._path, self._measure = path, measure
        self._kept: dict[str, list[float]] = read_json(path, what="latencies") if path.exists() else {}

    def ms(self, architecture: Architecture, processes: int = 1) -> float:
        """Return the median of what a network took in so many processes, or in more."""
        times = self._kept.setdefault(key_of(architecture), [])
        while len(times) < processes:
            times.append(self._measure(architecture))
            write_json(self._path, self._kept)
        return statistics.median(times)


def key_of(architecture: Architecture) -> str:
    """Return what stands for a network in files."""
    return hashlib.sha256(json.dumps(architecture.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def ladder(make: Callable[[float], Chain]) -> list[Chain]:
    """Return a network at rising widths, each once, up to where none is a file any more; `make` makes it of one."""
    networks: dict[Chain, None] = {}
    for width in WIDTHS:
        network = make(width)
        try:
            network.graph  # noqa: B018  its size is checked
        except InputError:
            break
        networks[network] = None
    return list(networks)


def highest(count: int, fits: Callable[[int], bool], start: int) -> int:
    """Return the last of so many rising steps that fits, or -1: steps that double from `start`, then halves."""
    low, high, at, step = -1, count, start, 1
    while high - low > 1:
        if fits(at):
            low = at
        else:
            high = at
        if high == count:
            at = min(low + step, count - 1)
        elif low == -1:
            at = max(high - step, 0)
        else:
            at = (low + high) // 2
        step *= 2
    return low


def within(networks: Sequence[Chain], cap: float, clock: Clock) -> list[Chain]:
    """Return those of a ladder that fit a cap, as one process tells."""
    start = min(range(len(networks)), key=lambda at: abs(networks[at].graph.mult_adds - cap * EXPECTED))
    last = highest(len(networks), lambda at: clock.ms(networks[at]) <= cap, start)
    return list(networks[: last + 1])


def largest(ladders: Sequence[Sequence[Chain]], cap: float, clock: Clock, *, processes: int) -> Chain | None:
    """Return the network of most Mult-Adds that fits a cap in the median of processes, of ladders of rising width.

    One process tells how far each ladder reaches; where more of them tell that this is too far, the next one is tried.
    """
    reached = [within(networks, cap, clock) for networks in ladders]
    while any(reached):
        top = max(filter(None, reached), key=lambda networks: networks[-1].graph.mult_adds)
        network = top.pop()
        if clock.ms(network, processes) <= cap:
            return network
    return None


class Contest:
    """What the networks of all caps have in common: data, device and recipe, and what is known of them so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device: Device = named_device(options.device)
        own = datasets.load(options.data, seed=0)
        self._datasets = {own.resolution: own}
        self.own, self.classes, self.channels = own.resolution, len(own.classes), own.channels
        self.sides = options.resolutions or ([self.own] if options.quick else [self.own, self.own * 3 // 4])
        self.records: dict[tuple[str, int], dict[str, Any]] = {}

    @property
    def setting(self) -> Setting:
        """The setting, without the rewrites that the device's table was measured without."""
        return as_measured(self.device, self.device.setting(self.options.setting))

    @cached_property
    def clock(self) -> Clock:
        """What networks take; of a device without a table it is something else, as its canary is not known."""
        has_table = find_table(self.device, self.setting) is not None
        return Clock(Path("latencies.json" if has_table else "latencies-without-table.json"), self._measure)

    def _measure(self, architecture: Architecture) -> float:
        """Return what a network takes, written and timed as `hwnas export` does it."""
        setting = self.setting
        table = find_table(self.device, setting)
        with temporary_folder() as folder:
            lowered = formats.get(setting.runtime).lower(architecture.graph, without=setting.without)
            (measured,) = time_beside(table, self.device, setting, write_models({"network": lowered}, setting, folder))
        return stated_ms(measured.measurement, table)

    def dataset(self, side: int) -> datasets.Dataset:
        if side not in self._datasets:
            self._datasets[side] = datasets.load(self.options.data, seed=0, resolution=side)
        return self._datasets[side]

    def profile(self, space: str) -> None:
        """Fill the device's table for a space; what it has is not measured again."""
        quick: dict[str, Any] = {"cells": (1,), "filters": (8,), "networks": 0} if self.options.quick else {}
        of_data = {"resolution": (self.own,), "channels": self.channels, "classes": self.classes}
        hwnas.profile(self.options.device, setting=self.options.setting, space=space, **of_data, **quick)

    def hand_made(self, cap: float) -> Iterator[Contestant]:
        """Yield each family's largest network that fits a cap."""
        options = self.options
        with bar(f"scaling to {cap:g} ms", len(options.families)) as progress:
            for family in options.families:
                ladders = [self._ladder(family, depth, side) for depth in options.depths for side in self.sides]
                network = largest(ladders, cap, self.clock, processes=options.processes)
                progress.advance()
                if network is None:
                    remark(f"nothing of {family} fits {cap:g} ms")
                else:
                    yield Contestant(family, MADE, network, self.clock.ms(network, options.processes))

    def _ladder(self, family: str, depth: float, side: int) -> list[Chain]:
        def make(width: float) -> Chain:
            of_data = {"resolution": side, "classes": self.classes, "channels": self.channels}
            return adapted(FAMILIES[family](), width=width, depth=depth, **of_data)

        return ladder(make)

    def winners(self, cap: float) -> Iterator[Contestant]:
        """Yield the winner of each search under a cap and of each run: none where nothing on the front fits."""
        folders = [
            (f"{search} {seed}", self._searched(search, cap, seed))
            for search in self.options.searches
            for seed in range(self.options.search_seeds)
        ]
        for name, folder in [*folders, *((Path(run).name, Path(run)) for run in self.options.runs)]:
            took = folder / "took.json"
            seconds = read_json(took, what="seconds")["searched"] if took.exists() else None
            front = [candidate for candidate in front_of(Run.open(folder).candidates()) if candidate.latency_ms <= cap]
            ranked = sorted(front, key=lambda candidate: -candidate.accuracy)
            if self.options.finalists:
                trial, more = self._final(folder)
                seconds = None if seconds is None else seconds + more
                ranked = [one for one in Run.open(folder).candidates() if one.trial == trial] + ranked
            for candidate in ranked:
                ms = self.clock.ms(candidate.architecture, self.options.processes)
                if ms <= cap:
                    yield Contestant(f"{name} ({candidate.trial})", FOUND, candidate.architecture, ms, seconds)
                    break
            else:
                remark(f"nothing of {name} fits {cap:g} ms")

    def _searched(self, search: str, cap: float, seed: int) -> Path:
        """Return the folder of a search, once that is done."""
        options, (space, strategy, estimator) = self.options, search.split(":")
        out = Path("searches") / f"{search.replace(':', '-')}-{cap:g}-{seed}"
        done = out / "done.json"
        if done.exists() and read_json(done, what="trials") >= options.trials:
            return out
        arguments = ["--cells=1", "--filters=8"] if options.quick else []
        arguments += [f"--max-latency-ms={cap}", f"--space={space}", f"--strategy={strategy}", f"--seed={seed}"]
        arguments += [f"--estimator={estimator}", f"--trials={options.trials}", f"--resolution={self.own}"]
        arguments += [f"--data={options.data}", f"--device={options.device}", f"--setting={options.setting}"]
        out.parent.mkdir(exist_ok=True)
        timed(out / "took.json", ["search", *arguments, f"--out={out}"])
        write_json(done, options.trials)
        return out

    def _final(self, folder: Path) -> tuple[int, float]:
        """Return the trial that is the best of a run's finalists, and the seconds that this took, its training too."""
        options, trials = self.options, len(Run.open(folder).candidates())
        kept = folder / f"finalists-{options.finalists}-of-{trials}.json"
        recipe = {"epochs": options.epochs, "batch_size": options.batch_size, "learning_rate": options.learning_rate}
        asked = {"winners": "best:1", "finalists": options.finalists, **recipe}
        if not kept.exists() or "trial" not in read_json(kept, what="seconds"):
            words = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
            augment = "--augment" if options.augment else "--no-augment"
            took = timed(kept, ["train", str(folder), *words, augment])
            (winner,) = hwnas.train(run=str(folder), **asked, augment=options.augment)  # which is there
            write_json(kept, {**took, "trial": winner.trial})
        done = read_json(kept, what="seconds")
        return done["trial"], done["searched"]

    def write(self, result: dict[str, list[ContestRow]]) -> None:
        """Write the figures of all caps: as a table, as pictures and as the report reads them."""
        write_text(Path("contest.md"), table(result, self.setting))
        for cap, rows in result.items():
            write_bytes(Path(f"contest-{cap}.png"), pictures.png(pictures.contest_figure(rows, cap_ms=float(cap))))
        options = self.options
        of = {"data": options.data, "device": options.device, "setting": self.setting.name, "epochs": options.epochs}
        ContestRecord(version=ContestRecord.VERSION, **of, caps=result).write(Path("contest.json"))

    def in_reach(self, contestants: Sequence[Contestant]) -> Sequence[Contestant]:
        """Return those under a cap that are not further behind its best than `--within`; before the first seed all."""
        if not self.records:
            return contestants
        means = [accuracy_of(each.architecture, self.records) for each in contestants]
        return [each for each, mean in zip(contestants, means, strict=True) if mean >= max(means) - self.options.within]

    def trained(self, contestant: Contestant, seed: int) -> None:
        """Train and test a network with a seed, unless that is done already."""
        key = key_of(contestant.architecture)
        path = Path("trained") / f"{key}-{seed}.json"
        if not path.exists():
            write_json(path, self._trained(contestant, seed, path.with_suffix(".safetensors")))
            path.with_suffix(".safetensors").unlink(missing_ok=True)
        self.records[key, seed] = read_json(path, what="a training")

    def _trained(self, contestant: Contestant, seed: int, checkpoint: Path) -> dict[str, Any]:
        options, dataset = self.options, self.dataset(contestant.architecture.graph.layers[0].shape[1])
        settings = TrainingSettings(
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            augment=options.augment,
            seed=seed,
            device="cpu",
            precision="fp32",
        )
        checkpoint.parent.mkdir(exist_ok=True)
        with bar(f"training {contestant.network}, seed {seed}", 1) as steps:
            result = train_network(
                contestant.architecture,
                dataset.whole_train,
                dataset,
                settings,
                checkpoint=checkpoint,
                on_progress=lambda progress: steps.at(progress.step, total=progress.steps),
                clock=time.process_time,
            )
        accuracy = scores(result.network, dataset.test, dataset).accuracy
        return {
            "network": contestant.network,
            "choice": contestant.architecture.name,
            "seed": seed,
            "trained": result.seconds,
            "accuracy_fp32": accuracy,
            "accuracy": accuracy
            if self.setting.precision == "fp32"
            else self._of_file(result.network, dataset, checkpoint),
        }

    def _of_file(self, network: Any, dataset: datasets.Dataset, checkpoint: Path) -> float:
        """Return the accuracy of a network's exported file on the test images, on 10,000 of them at most."""
        name = f"model{formats.get(self.setting.runtime).SUFFIX}"
        with temporary_folder() as folder:
            try:
                files = write_checked(
                    network,
                    dataset,
                    folder,
                    {name: self.setting},
                    {},
                    trusted=not self.options.quick,
                    checkpoint=checkpoint.with_suffix(".fine-tuning"),
                )
            except ExportError as error:  # `hwnas export` would leave it out
                remark(str(error))
                files = write_checked(network, dataset, folder, {name: self.setting}, {}, trusted=False)
        accuracy = files[name].accuracy
        assert accuracy is not None  # every file of reduced precision has one
        return accuracy


def summary(
    cap: float, contestants: Sequence[Contestant], records: dict[tuple[str, int], dict[str, Any]]
) -> list[ContestRow]:
    """Return the figures of the networks under a cap, the most accurate first."""
    rows = []
    for each in contestants:
        graph, trainings = each.architecture.graph, trainings_of(each.architecture, records)
        accuracies = [record["accuracy"] for record in trainings]
        rows.append(
            ContestRow(
                network=each.network,
                kind=each.kind,
                name=each.architecture.name,
                ms=round(each.ms, 4),
                share=round(each.ms / cap, 3),
                mult_adds=graph.mult_adds,
                parameters=graph.parameters,
                accuracy=statistics.mean(accuracies),
                interval=half_interval(accuracies),
                accuracies=accuracies,
                searched=each.searched,
                trained=statistics.median(record["trained"] for record in trainings),
            )
        )
    return sorted(rows, key=lambda row: -row.accuracy)


def trainings_of(architecture: Architecture, records: dict[tuple[str, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is known of the trainings of a network, by rising seeds."""
    key = key_of(architecture)
    return [record for (of, _), record in sorted(records.items()) if of == key]


def accuracy_of(architecture: Architecture, records: dict[tuple[str, int], dict[str, Any]]) -> float:
    """Return the mean test accuracy of a network over its seeds."""
    return statistics.mean(record["accuracy"] for record in trainings_of(architecture, records))


def half_interval(values: Sequence[float]) -> float | None:
    """Return half the interval of the mean, 95 %, by Student's t; None of one value."""
    if len(values) < 2:
        return None
    quantile = float(student_t.ppf(0.975, len(values) - 1))
    return quantile * statistics.stdev(values) / len(values) ** 0.5


def table(result: dict[str, list[ContestRow]], setting: Setting) -> str:
    """Return the figures of all caps in Markdown."""
    of = "PyTorch" if setting.precision == "fp32" else f"the {setting.precision} file"
    head = ["network", f"test accuracy of {of} (%)", "ms (share of the cap)", "M Mult-Adds", "k parameters"]
    head += ["search (s)", "training (CPU s)"]
    lines = []
    for cap, rows in result.items():
        lines += [f"Cap {cap} ms, {setting.name}:", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for row in rows:
            half = "" if row.interval is None else f" ± {100 * row.interval:.2f}"
            cells = [
                f"**{row.network}**" if row.kind == FOUND else row.network,
                f"{100 * row.accuracy:.2f}{half}",
                f"{row.ms:.3f} ({row.share:.0%})",
                f"{row.mult_adds / 1e6:.1f}",
                f"{row.parameters / 1e3:.0f}",
                "-" if row.searched is None else f"{row.searched:.0f}",
                f"{row.trained:.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
