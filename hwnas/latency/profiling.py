"""Measures on the device every operator that a space can need, and some whole networks: fills a latency table."""

import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas import spaces
from hwnas.support import Bar, bar, duration, plugins, say, temporary_folder

if TYPE_CHECKING:
    from hwnas.device import Device, Setting
    from hwnas.latency.conditions import Conditions
    from hwnas.latency.lines import Timed
    from hwnas.latency.measurement import Measurement
    from hwnas.latency.steadiness import Steadiness
    from hwnas.latency.table import LatencyTable, Session
    from hwnas.latency.validation import Validation
    from hwnas.network import Architecture, Graph, Scale

_SAVING = 0.05  # share of the time that the table may be saved in
_ROUNDS_A_PASS = 2
_ROUNDS = 6  # that an operator needs
_NETWORK_ROUNDS = 10  # that a whole network needs, each of which weighs more
_MOST_ROUNDS = 12  # that an entry gets whose rounds disagree by more than this share
_MAX_SPREAD = 0.1
_HELD_OUT = "held-out network"
_OTHER_SEED = 1_000_003  # far from the seeds that people choose
_CHUNK = 256  # models that one process of the runner times


@dataclass(frozen=True, slots=True)
class Profiled:
    """What `profile` did to one table, and what to type next.

    `error` is the prediction's, as a share, on networks it was not fitted to.
    """

    device: str
    setting: str
    table: str
    entries: int
    measured_now: int
    unstable: int
    networks: int
    median_spread: float
    canary_ms: float | None
    error: float
    steadiness: "Steadiness"
    validation: "Validation | None"
    seconds: float
    next: str = ""
    estimated_by: str = ""  # a tool with its version; empty where the device was measured

    def __str__(self) -> str:
        if self.estimated_by:
            return (
                f"{self.table}: {self.entries} operators ({self.measured_now} new, {self.seconds:.0f} s), estimated by "
                f"{self.estimated_by}; {self.networks} whole networks, nine of ten predicted within {self.error:.1%}"
            )
        return (
            f"{self.table}: {self.entries} operators ({self.measured_now} measured now, {self.seconds:.0f} s), "
            f"{self.unstable} unstable; median spread {self.median_spread:.1%}; {self.networks} whole networks, "
            f"nine of ten predicted within {self.error:.1%}"
        )


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be measured of every setting."""

    space: str
    scales: "Sequence[Scale]"
    networks: int  # to fit to
    held_out: int
    seed: int
    max_wait: float

    def session(self, conditions: "Conditions") -> "Session":
        """Return what the table is to remember of it, as it begins."""
        from hwnas.latency.table import Session, scale_choices

        return Session(
            space=self.space,
            scales=scale_choices(self.scales),
            networks=self.networks,
            seed=self.seed,
            held_out=self.held_out,
            held_out_seed=self.seed + _OTHER_SEED,
            before=conditions,
            after=conditions,
        )


def profile_setting(device: "Device", setting: "Setting", task: Task, fresh: bool, unstable: bool) -> Profiled:
    """Measure a device in one setting: fill its latency table, when no other process does."""
    from hwnas.latency.where import own_path, table_lock

    with table_lock(own_path(device, setting)):  # another profile's entries would be lost
        return _profile(device, setting, task, fresh, unstable)


def _profile(device: "Device", setting: "Setting", task: Task, fresh: bool, unstable: bool) -> Profiled:
    from hwnas.device.transports import is_estimated
    from hwnas.latency.costs import CostModel
    from hwnas.latency.steadiness import judge
    from hwnas.latency.validation import validate

    started = time.monotonic()
    table = _table_to_fill(device, setting, task, fresh)
    say(f"profiling {device.name} in setting {setting.name}, into {table.path}")
    _choose_rewrites(device, table, task)
    new = _estimate(device, table, task) if is_estimated(device) else _measure(device, table, task, unstable)
    model = CostModel(table, task.scales)
    spreads = sorted(entry.spread for entry in table.entries.values())
    return Profiled(
        device=device.name,
        setting=table.setting.name,
        table=str(table.path),
        entries=len(table.entries),
        measured_now=new,
        unstable=sum(entry.unstable for entry in table.entries.values()),
        networks=len(table.networks),
        median_spread=spreads[len(spreads) // 2],
        canary_ms=table.canary_ms,
        error=model.correction.error,
        steadiness=judge(table),
        validation=validate(model),
        seconds=time.monotonic() - started,
        estimated_by=table.estimated_by,
    )


def _table_to_fill(device: "Device", setting: "Setting", task: Task, fresh: bool) -> "LatencyTable":
    """Return the device's table if it fits the device as it is now, or a new one, to be written in the user's folder.

    What hwnas ships is not measured again, and not written to.
    """
    from hwnas.latency.measure import read_conditions
    from hwnas.latency.table import LatencyTable
    from hwnas.latency.where import check_conditions, find_table, own_path

    path = own_path(device, setting)
    conditions = read_conditions(device, setting)
    if path.exists() and fresh:
        path.replace(path.with_suffix(f".{time.strftime('%Y%m%dT%H%M%S')}.old"))
    table = None if fresh else find_table(device, setting)
    if table is None:
        return LatencyTable(path, device.name, setting, conditions)
    command = task.session(conditions).command(device.name, setting, fresh=True)
    check_conditions(table, conditions.fingerprint, command=command)
    table.path = path
    return table


def _choose_rewrites(device: "Device", table: "LatencyTable", task: Task) -> None:
    """Time networks with and without each rewrite, and leave out what is slower: once, before anything is measured."""
    from hwnas.device.transports import is_estimated
    from hwnas.formats import rewritten_layers
    from hwnas.latency.rewrite_worth import measure_rewrites

    setting = table.setting
    if table.entries or table.rewrites:
        return
    graphs = [network.graph for network in random_networks(task.space, task.scales, task.networks, seed=task.seed)]
    asked = {name for graph in graphs for name in rewritten_layers(graph, setting)}
    if not asked:
        return
    way = "estimating" if is_estimated(device) else "timing"
    say(f"{way} a few networks with and without {', '.join(sorted(asked))}")
    table.choose(measure_rewrites(device, setting, graphs))
    table.save()
    for name, ratio in sorted(table.rewrites.items()):
        say(f"{name}: {ratio:.2f} of the time without it{', so it is left out' if ratio > 1 else ''}")


def _wanted(table: "LatencyTable", task: Task) -> "tuple[dict[str, Graph], dict[str, Architecture]]":
    """Return what is to be measured, by name: lowered graphs, and the architectures of those that are whole networks.

    An operator's name is its key in the table, its graph that layer alone; those of networks that are to be held out
    begin with `_HELD_OUT`.
    """
    from hwnas import formats
    from hwnas.network import executed, one_layer

    setting = table.setting
    runtime = formats.get(setting.runtime, precision=setting.precision)
    lower = partial(runtime.lower, without=setting.without)
    graphs: dict[str, Graph] = {}
    cover = _cover(task)
    with bar("listing the operators", len(cover)) as listing:
        for architecture in cover:
            for name, layer, shapes in executed(lower(architecture.graph)):
                if name not in graphs:
                    graphs[name] = one_layer(layer, shapes)
            listing.advance()
    architectures = _whole_networks(task)
    graphs |= {name: lower(architecture.graph) for name, architecture in architectures.items()}
    return graphs, architectures


def _cover(task: Task) -> "list[Architecture]":
    """Return networks that together have every operator that the space can need."""
    return list(dict.fromkeys(chain.from_iterable(map(plugins.load("spaces", task.space).cover, task.scales))))


def _whole_networks(task: Task) -> "dict[str, Architecture]":
    """Return the networks that are wanted whole, by name; the names of those to hold out begin with `_HELD_OUT`."""
    fitted = random_networks(task.space, task.scales, task.networks, seed=task.seed)
    others = random_networks(task.space, task.scales, task.held_out, seed=task.seed + _OTHER_SEED)
    architectures = {f"network {index}": architecture for index, architecture in enumerate(fitted)}
    return architectures | {f"{_HELD_OUT} {i}": other for i, other in enumerate(others) if other not in fitted}


def _estimate(device: "Device", table: "LatencyTable", task: Task) -> int:
    """Have a tool estimate what the table lacks; return how many entries are new."""
    from hwnas.latency.estimating import fill

    watch, before = _Watch(table, task), len(table.entries)
    fill(
        device,
        table,
        _cover(task),
        _whole_networks(task),
        held_out=_HELD_OUT,
        on_conditions=watch.conditions,
        seed=task.seed,
    )
    watch.finish()
    return len(table.entries) - before


def _forget_unstable(
    table: "LatencyTable", graphs: "Mapping[str, Graph]", architectures: "Mapping[str, Architecture]"
) -> None:
    """Drop what is about to be measured, and is in the table with rounds that disagree."""
    wanted = set(architectures.values())
    table.entries = {key: entry for key, entry in table.entries.items() if not (entry.unstable and key in graphs)}
    table.networks = [n for n in table.networks if not (n.measurement.unstable and n.architecture in wanted)]


class _Watch:
    """Listens to what the device tells while it is measured, and keeps it in the table, as its last session."""

    def __init__(self, table: "LatencyTable", task: Task) -> None:
        self.task = task
        self.pace: dict[str, float] = {}
        self._table, self._earlier = table, list(table.sessions)
        self._session: Session | None = None

    def conditions(self, now: "Conditions") -> None:
        """Take note of the conditions, before and after some models."""
        from hwnas.device import throttled

        session = self._session or dataclasses.replace(self.task.session(now), unfinished=True)
        self._keep(
            dataclasses.replace(
                session,
                after=now,
                others_busy=max(filter(None, (session.others_busy, now.others_busy)), default=now.others_busy),
                throttled=throttled(session.before.model_dump(), now.model_dump()) or session.throttled,
            )
        )

    def wait(self, seconds: float, reason: str) -> None:
        """Say once that the device is given pauses, and count them."""
        if self._session is None:
            return
        if not self._session.waited_s:
            say(f"{reason}: it is given pauses, for {self.task.max_wait:.0%} of the time at most (--max-wait)")
        self._keep(dataclasses.replace(self._session, waited_s=self._session.waited_s + seconds))

    def finish(self) -> None:
        """Take note in the table that all is measured, also what earlier sessions of this task were stopped in."""
        if self._table.unfinished(self.task.space, self.task.scales) is None:
            return
        self._table.sessions = [
            dataclasses.replace(session, unfinished=False)
            if session.is_of(self.task.space, self.task.scales)
            else session
            for session in self._table.sessions
        ]
        self._table.save()

    def _keep(self, session: "Session") -> None:
        self._session = session
        self._table.sessions = [*self._earlier, session]


def _measure(device: "Device", table: "LatencyTable", task: Task, unstable: bool) -> int:
    """Time what lacks rounds, in passes over all of it, so that each entry's rounds are spread over the whole time.

    Return how many entries are new.
    """
    setting = table.setting
    graphs, architectures = _wanted(table, task)
    if unstable:
        _forget_unstable(table, graphs, architectures)
    before = len(table.entries)
    watch, done, started = _Watch(table, task), 0, time.monotonic()
    with bar("measuring", 1) as measuring, temporary_folder() as folder:
        written = _Written(graphs, setting, folder)
        for number in range(_MOST_ROUNDS // _ROUNDS_A_PASS):
            left = {name: _passes_left(table, name, architectures) for name in graphs}
            due = [name for name, turns in left.items() if turns]
            random.Random(task.seed + number).shuffle(due)
            if number == 0:
                say(
                    f"to measure: {Due.of(left, architectures)}"
                    if due
                    else "the table has all of it: nothing is measured"
                )
            measuring.describe(f"{len(due)} operators and networks, pass {number + 1}")
            measuring.at(done, total=done + sum(left.values()))
            for chunk in _chunks(due):
                _measure_chunk(device, setting, table, written.files(chunk), architectures, measuring, watch)
                if number == 0 and chunk[0] == due[0]:
                    seconds = (time.monotonic() - started) * (sum(left.values()) / len(chunk) - 1)
                    say(f"at this device's pace that takes {duration(seconds)} more")
            done += len(due)
    watch.finish()
    return len(table.entries) - before


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be measured, and how many seconds that takes at least: models are written and moved beside it."""

    operators: int = 0
    networks: int = 0
    least_s: float = 0.0
    is_estimated: bool = False

    @classmethod
    def of(cls, left: Mapping[str, int], architectures: "Mapping[str, Architecture]") -> "Due":
        """Return what passes that are left, by the names of operators and whole networks, come to."""
        from hwnas.device import Job

        due = [name for name, turns in left.items() if turns]
        networks = sum(name in architectures for name in due)
        least_ms = sum(left.values()) * _ROUNDS_A_PASS * (Job.warmup_ms + Job.min_ms)
        return cls(len(due) - networks, networks, least_ms / 1e3)

    def __str__(self) -> str:
        if self.is_estimated:
            return f"{self.operators} operators and {self.networks} whole networks, estimated once"
        return (
            f"{self.operators} operators in {_ROUNDS} rounds and {self.networks} whole networks in "
            f"{_NETWORK_ROUNDS}, more where they disagree; {duration(self.least_s)} at least"
        )


def what_is_due(device: "Device", setting: "Setting", task: Task) -> Due:
    """Return what `profile_setting` would measure, without asking the device: as if no rewrite were slower on it."""
    from hwnas.device.transports import is_estimated
    from hwnas.latency.conditions import Conditions
    from hwnas.latency.table import LatencyTable
    from hwnas.latency.where import find_table, own_path

    new = LatencyTable(own_path(device, setting), device.name, setting, Conditions())
    table = find_table(device, setting) or new
    graphs, architectures = _wanted(table, task)
    if is_estimated(device):
        keys = table.missing(name for name in graphs if name not in architectures)
        networks = sum(table.network(network) is None for network in architectures.values())
        return Due(len(keys), networks, is_estimated=True)
    return Due.of({name: _passes_left(table, name, architectures) for name in graphs}, architectures)


def _measure_chunk(
    device: "Device",
    setting: "Setting",
    table: "LatencyTable",
    files: Mapping[str, Path],
    architectures: "Mapping[str, Architecture]",
    measuring: Bar,
    watch: _Watch,
) -> None:
    """Time one chunk, adding to the table's entries and saving it again and again."""
    from hwnas.latency.measure import time_models

    with _saved(table) as save:
        timings = time_models(
            device,
            setting,
            files,
            rounds=_ROUNDS_A_PASS,
            attempts=1,
            max_wait=watch.task.max_wait,
            pace=watch.pace,
            on_conditions=watch.conditions,
            on_wait=watch.wait,
        )
        for timed in timings:
            _add(table, timed, architectures)
            measuring.advance()
            save()


def _found(table: "LatencyTable", name: str, architectures: "Mapping[str, Architecture]") -> "Measurement | None":
    """Return what the table has of an operator or a whole network."""
    if name not in architectures:
        return table.entries.get(name)
    return table.network(architectures[name])


def _add(table: "LatencyTable", timed: "Timed", architectures: "Mapping[str, Architecture]") -> None:
    """Add rounds to an entry; one that stays spread after all its rounds is marked unstable."""
    name = timed.name
    merged = timed.measurement.after(_found(table, name, architectures))
    done = len(merged.rounds_ms) >= _MOST_ROUNDS
    merged = dataclasses.replace(merged, unstable=merged.spread > _MAX_SPREAD and done)
    if name in architectures:
        held_out = name.startswith(_HELD_OUT)
        table.set_network(architectures[name], merged, held_out=held_out, other=timed.other)
    else:
        table.entries[name] = merged


def _passes_left(table: "LatencyTable", name: str, architectures: "Mapping[str, Architecture]") -> int:
    """Return how many more passes an entry needs: until it has its rounds, and more of them where they disagree."""
    measurement = _found(table, name, architectures)
    rounds = len(measurement.rounds_ms) if measurement else 0
    wanted = _NETWORK_ROUNDS if name in architectures else _ROUNDS
    if measurement and rounds >= wanted and measurement.spread > _MAX_SPREAD:
        wanted = _MOST_ROUNDS
    return max(0, wanted - rounds) // _ROUNDS_A_PASS


def random_networks(space: str, scales: "Sequence[Scale]", count: int, *, seed: int) -> "list[Architecture]":
    """Return random networks of a space, each at a random scale."""
    chooser = random.Random(seed)
    plugin = plugins.load("spaces", space)
    chosen = spaces.random_parameters(plugin, count, seed=seed)
    return [plugin.architecture(parameters, chooser.choice(scales)) for parameters in chosen]


def _chunks(names: Sequence[str]) -> Iterator[list[str]]:
    left = iter(names)
    while chunk := list(islice(left, _CHUNK)):
        yield chunk


@contextmanager
def _saved(table: "LatencyTable") -> Iterator[Callable[[], None]]:
    """Save the table when the block ends, however it ends; and when what is given is called, unless that was just now.

    A large table takes long to save: the next time comes when that is no more than `_SAVING` of the time.
    """
    due = 0.0

    def save() -> None:
        nonlocal due
        started = time.monotonic()
        if started >= due:
            table.save()
            due = started + (time.monotonic() - started) / _SAVING

    try:
        yield save
    finally:
        table.save()


class _Written:
    """Models as files, written when they are first asked for and kept for all passes."""

    def __init__(self, graphs: "Mapping[str, Graph]", setting: "Setting", folder: Path) -> None:
        self._graphs, self._setting, self._folder = graphs, setting, folder
        self._files: dict[str, Path] = {}

    def files(self, names: Sequence[str]) -> dict[str, Path]:
        """Return the files of these models, by their names."""
        from hwnas.latency.measure import write_models

        if missing := {name: self._graphs[name] for name in names if name not in self._files}:
            part = self._folder / str(len(self._files))
            part.mkdir()
            self._files |= write_models(missing, self._setting, part)
        return {name: self._files[name] for name in names}
