"""The kinds of files and lines that hwnas reads: a whole one of each, ways to damage it, and what reads it.

All of it happens in a copy of tests/data/before, the working folder, in which a damaged file stands in the place of the
whole one.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from mutations import damaged_bytes, damaged_npz, damaged_text, damaged_tree, json_text, toml_text, with_damage

BEFORE = Path(__file__).parent.parent / "data" / "before"
ARTEFACT, RUN, WINNER = Path("export/a/0000"), Path("runs/a"), Path("runs/a/winners/0000")
TABLE = Path("latency_tables/host/tflite-fp32-1t.json")
CHAIN = {
    "kind": "chain", "stem": 8, "head": 16, "resolution": 24, "classes": 10, "hidden": 8, "activation": "hard_swish",
    "blocks": [
        {"filters": 8, "kernel": 3, "stride": 1, "expanded": 8, "activation": "relu", "squeezed": 8},
        {"filters": 12, "kernel": 5, "stride": 2, "expanded": 24, "activation": "relu6", "squeezed": 0},
    ],
}  # fmt: skip
MACRO = {
    "kind": "macro",
    "scale": {"cells": 1, "filters": 4, "resolution": 12, "classes": 3, "input_channels": 1},
    "layers": [["separable_3x3", []], ["max_pool_3x3", [0]], ["conv_3x3", [0, 1]]],
}
RUN_FILE = """\
out = "runs/new"
[device]
device = "host"
setting = "tflite-fp32-1t"
threads = 1
[profile]
networks = 8
max_wait = 0.1
[search]
data = "npz:images.npz"
max_latency_ms = 2.0
max_mult_adds = 1e6
cells = [1, 2]
filters = [4, 6]
resolution = 12
space = "pnas"
strategy = "random"
proxies = ["synflow"]
targets = [0.5, 1.0]
trials = 3
seed = 1
predicted = true
[train]
winners = "best:2"
epochs = 1.5
augment = false
accelerator = "cpu"
[export]
files = ["model.onnx"]
input = "pixels"
batch = 2
"""
CONDITIONS = {
    "cpu": "abacus", "cores": 2, "arch": "x86_64", "runtime": "tflite", "runtime_version": "ai-edge-litert 2.3.0",
    "threads": 1, "pinned": [1], "governor": None, "frequency_mhz": [2000.0], "load": 0.5, "others_busy": 0.1,
    "temperature_c": None, "python": "3.11.7", "numpy": "2.4.6", "date": "2026-01-01T00:00:00Z",
}  # fmt: skip
PLACEMENT = {"processor": "cpu", "delegate": "XNNPACK", "whole": True, "operators": 9, "of": 9, "partitions": 1,
             "flags": ["num_threads=1"]}  # fmt: skip
TIMED = {"name": "a", "rounds_ms": [[1.0, 2.0]], "attempts": 1, "unstable": True, "load_ms": 3.0, "first_ms": 4.0,
         "peak_memory_bytes": 4096, "canary_ms": [1.0], "placement": PLACEMENT}  # fmt: skip
COMPUTED = {"name": "a", "outputs": [{"dtype": "float32", "shape": [1, 2], "base64": "AACAPwAAAEA="}],
            "instructions": 5}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of input: a whole one, how a damaged one is made, and what reads it."""

    whole: bytes
    damage: Callable[[Random], bytes]
    read: Callable[[bytes], object]


def kind(name: str, folder: Path) -> Kind:
    """Return a kind, in a working folder of its own."""
    place = folder / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(BEFORE, place)
    os.chdir(place)
    return KINDS[name]()


def _file(path: Path, damage: Callable[[Random], bytes], read: Callable[[], object]) -> Kind:
    """Return the kind of a file that there is."""
    return Kind(path.read_bytes(), damage, lambda content: (_replace(path, content), read()))


def _replace(path: Path, content: bytes) -> None:
    """Put another file in a path's place: the one that was there may still be mapped into memory."""
    new = path.with_name("new")
    new.write_bytes(content)
    new.replace(path)


def _json_file(path: Path, read: Callable[[], object]) -> Kind:
    value = json.loads(path.read_text())
    return _file(path, lambda random: damaged_tree(random, value, json_text), read)


def _written(path: Path, value: Any, write: Callable[[Any], str], read: Callable[[], object]) -> Kind:
    """Return the kind of a file of values that is made here."""
    path.write_text(write(value))
    return _file(path, lambda random: damaged_tree(random, value, write), read)


def card() -> Kind:
    import hwnas
    from hwnas.artefacts.card import Card
    from hwnas.artefacts.files import BY_DEFAULT, read_check, whole_card
    from hwnas.cli.encode import encoded

    def read() -> None:
        path = ARTEFACT / "card.json"
        whole_card(ARTEFACT, BY_DEFAULT)
        card = Card.read(path, again="hwnas export RUN")
        encoded(card)
        _ = card.is_explained, card.own_file, card.is_trained
        hwnas.describe(str(ARTEFACT))
        read_check(ARTEFACT, card).images(card)

    return _json_file(ARTEFACT / "card.json", read)


def _page() -> None:
    """Make all words of a report's page, without its pictures."""
    from hwnas.pages import View
    from hwnas.runs import Run

    view = View(Run.open(RUN), Path("export"))
    for name, part in vars(type(view)).items():
        if isinstance(part, property):
            getattr(view, name)


def card_on_a_page() -> Kind:
    """A card as a report shows it."""
    return _json_file(ARTEFACT / "card.json", _page)


def card_in_a_report() -> Kind:
    import hwnas

    return _json_file(ARTEFACT / "card.json", lambda: hwnas.report(str(RUN)))


def _described(path: Path, value: Any, write: Callable[[Any], str]) -> Kind:
    import hwnas

    return _written(path, value, write, lambda: hwnas.describe(str(path)))


def _cells() -> Any:
    return tomllib.loads(Path("cell.toml").read_text())


def cell_toml() -> Kind:
    return _described(Path("cell.toml"), _cells(), toml_text)


def cell_picture() -> Kind:
    import hwnas

    path = Path("cell.toml")
    return _written(path, _cells(), toml_text, lambda: hwnas.describe(str(path), picture="picture.svg"))


def cell_largest() -> Kind:
    """A cell that is to be made as large as caps allow."""
    import hwnas

    path = Path("cell.toml")
    return _written(path, _cells(), toml_text, lambda: hwnas.describe(str(path), max_mult_adds=1e6, filters=(4, 8)))


def cell_json() -> Kind:
    return _described(Path("cell.json"), _cells(), json_text)


def chain_toml() -> Kind:
    return _described(Path("chain.toml"), CHAIN, toml_text)


def chain_json() -> Kind:
    return _described(Path("chain.json"), CHAIN, json_text)


def macro_json() -> Kind:
    return _described(Path("macro.json"), MACRO, json_text)


def check() -> Kind:
    from hwnas.artefacts.card import Card
    from hwnas.artefacts.comparison import compare_logits
    from hwnas.artefacts.files import read_check

    path, card_path = ARTEFACT / "check.npz", ARTEFACT / "card.json"
    stated = json.loads(card_path.read_text())
    arrays = dict(np.load(path))

    def read(content: bytes) -> None:
        path.write_bytes(content)
        stated["check"]["sha256"] = hashlib.sha256(content).hexdigest()
        card_path.write_text(json.dumps(stated))
        card = Card.read(card_path, again="hwnas export RUN")
        check = read_check(ARTEFACT, card)
        check.images(card)
        compare_logits(check.logits, check.logits, check.labels)

    return Kind(path.read_bytes(), lambda random: damaged_npz(random, arrays), read)


def device() -> Kind:
    import hwnas
    from hwnas.device import load_device

    path = Path("devices/board.toml")

    def read() -> None:
        hwnas.devices(reach=False)
        load_device("board").setting("tflite-fp32-2t")

    return _written(path, tomllib.loads(path.read_text()), toml_text, read)


def journal() -> Kind:
    from hwnas.runs import Run

    path = RUN / "journal.log"
    lines = path.read_bytes().splitlines(keepends=True)

    def damage(random: Random) -> bytes:
        if random.random() < 0.5:
            return damaged_bytes(random, path_content) if random.random() < 0.5 else damaged_text(random, text)
        at = random.randrange(len(lines))
        record = damaged_tree(random, json.loads(lines[at]), json_text) + b"\n"
        return b"".join([*lines[:at], record, *lines[at + 1 :]])

    path_content, text = path.read_bytes(), path.read_text()

    def read() -> None:
        for left in RUN.glob("journal.log.*"):
            left.unlink()
        run = Run.open(RUN)
        run.candidates()
        run.choose(2)

    return _file(path, damage, read)


def journal_on_a_page() -> Kind:
    """A journal as a report shows it."""
    read = (whole := journal()).read
    return Kind(whole.whole, whole.damage, lambda content: (read(content), _page()))


def journal_in_a_report() -> Kind:
    import hwnas

    read = (whole := journal()).read
    return Kind(whole.whole, whole.damage, lambda content: (read(content), hwnas.report(str(RUN))))


def npz_data() -> Kind:
    from hwnas import datasets

    path, arrays = Path("images.npz"), dict(np.load("images.npz"))

    def read() -> None:
        import torch

        data = datasets.load("npz:images.npz")
        images = data.test
        data.train.read(torch.arange(2))
        images.read(torch.arange(2))

    return _file(path, lambda random: damaged_npz(random, arrays), read)


def idx_data() -> Kind:
    from hwnas import datasets

    folder, draw = Path("fashion"), np.random.default_rng(0)
    folder.mkdir()
    files = {}
    for part in ("train", "t10k"):
        images = draw.integers(0, 255, (60, 28, 28), dtype=np.uint8)
        labels = (np.arange(60) % 10).astype(np.uint8)
        files[f"{part}-images-idx3-ubyte"] = bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape) + images.tobytes()
        files[f"{part}-labels-idx1-ubyte"] = bytes([0, 0, 8, 1]) + struct.pack(">I", 60) + labels.tobytes()

    def damage(random: Random) -> bytes:
        name = random.choice(list(files))
        content = files[name]
        if random.random() < 0.4:
            sizes = random.choice([(2**31, 28, 28), (60, 2**16, 2**16), (0, 28, 28), (60, 28, 27), (61, 28, 28)])
            content = content[:4] + struct.pack(">3I", *sizes) + content[16:]
        else:
            content = damaged_bytes(random, content)
        if random.random() < 0.3:
            content, name = gzip.compress(content, 1, mtime=0), f"{name}.gz"
            content = damaged_bytes(random, content) if random.random() < 0.5 else content
        return name.encode() + b"\n" + content

    def read(content: bytes) -> None:
        for name, whole in files.items():
            (folder / name).write_bytes(whole)
            (folder / f"{name}.gz").unlink(missing_ok=True)
        name, _, damaged = content.partition(b"\n")
        (folder / name.decode().removesuffix(".gz")).unlink()
        (folder / name.decode()).write_bytes(damaged)
        _ = datasets.load("fashion-mnist:fashion").test

    return Kind(b"train-labels-idx1-ubyte\n" + files["train-labels-idx1-ubyte"], damage, read)


def photo() -> Kind:
    """An image of a folder for each class."""
    import torch
    from PIL import Image

    from hwnas import datasets

    draw, folder = np.random.default_rng(0), Path("photos")
    contents = {}
    for suffix, options in (("png", {}), ("jpg", {"quality": 90}), ("webp", {}), ("tiff", {}), ("bmp", {})):
        file = io.BytesIO()
        kinds = {"jpg": "JPEG", "tiff": "TIFF"}
        pixels = draw.integers(0, 255, (20, 18, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, kinds.get(suffix, suffix), **options)
        contents[suffix] = file.getvalue()
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            (folder / name / f"{number}.png").write_bytes(contents["png"])

    def damage(random: Random) -> bytes:
        suffix = random.choice(list(contents))
        return suffix.encode() + b"\n" + damaged_bytes(random, contents[suffix])

    def read(content: bytes) -> None:
        suffix, _, image = content.partition(b"\n")
        for left in (folder / "a").glob("0.*"):
            left.unlink()
        (folder / "a" / f"0.{suffix.decode()}").write_bytes(image)
        data = datasets.load("folder:photos", resolution=8)
        for images in (data.whole_train, data.test):
            images.read(torch.arange(len(images.labels)))

    return Kind(b"png\n" + contents["png"], damage, read)


def results_table() -> Kind:
    from hwnas.benching.results import Results, ResultsCandidates

    path = Path("table.csv")

    def read() -> None:
        results = Results.read(path, choices=["a", "b"], accuracy=["seen", "truth"], latency="ms")
        ResultsCandidates.under(results, 3.5).curves([0, 0])

    text = path.read_text()
    return _file(path, lambda random: damaged_text(random, text), read)


def _started() -> None:
    """Begin the comparison in the folder `bench`, or take it up again."""
    from hwnas.benching import Settings, sha256_of, start

    columns = {"choices": ("a", "b"), "accuracy": ("seen", "truth"), "latency": "ms", "costs": ()}
    start(Path("bench"), Settings(table="table.csv", sha256=sha256_of("table.csv"), evaluations=5, **columns))


def _compared() -> None:
    """Compare a run that is done."""
    from hwnas.benching import Case, compare_all, read_run
    from hwnas.benching.results import Results, ResultsCandidates

    results = Results.read("table.csv", choices=["a", "b"], accuracy=["seen", "truth"], latency="ms")
    case = Case("random", 3.5, 0)
    run = read_run(case.path(Path("bench")), rows=len(results.parameters), evaluations=5)
    compare_all([(case, run)], {3.5: ResultsCandidates.under(results, 3.5)}, 5)


def bench_settings() -> Kind:
    return _json_file(Path("bench/settings.json"), _started)


def bench_run() -> Kind:
    return _json_file(Path("bench/runs/random_3.5_0.json"), _compared)


def _lines(values: list[Any], read: Callable[[list[str]], object]) -> Kind:
    """Return the kind of what a device's runner writes, a line a value."""

    def damage(random: Random) -> bytes:
        lines = [json_text(value).encode() for value in values]
        at = random.randrange(len(lines))
        match random.randrange(4):
            case 0:
                return damaged_text(random, b"\n".join(lines).decode())
            case 1:
                lines.insert(at, random.choice([b"hello", b"[]", b"\x00\xff", b"{}", b"1" * 5000, b"\x1b[31m"]))
            case _:
                lines[at] = damaged_tree(random, values[at], json_text)
        return b"\n".join(lines)

    whole = "\n".join(map(json_text, values)).encode()
    return Kind(whole, damage, lambda content: read(content.decode(errors="replace").splitlines()))


def lines_of_timing() -> Kind:
    from hwnas.latency.lines import Heard, results_of, timed_of

    def read(lines: list[str]) -> None:
        heard = Heard(lambda conditions: None, lambda seconds, reason: f"{reason}: {seconds:.1f}", {})
        for timed in results_of(
            iter(lines), ["a"], where="board", heard=heard, parse=lambda line: timed_of(line, {"a": 1}, "board")
        ):
            _ = (
                timed.measurement.ms,
                timed.measurement.spread,
                timed.measurement.to_json(),
                timed.other.after(timed.other),
            )

    told = [{"conditions": CONDITIONS}, {"canary": PLACEMENT}, {"waiting": 1.0, "reason": "hot"}]
    return _lines([*told, TIMED, {"pace": {"left_s": 1.0}, "end": 1}], read)


def lines_of_computing() -> Kind:
    from hwnas.latency.lines import Heard, computed_of, results_of

    def read(lines: list[str]) -> None:
        heard = Heard(lambda conditions: None, None, {})
        list(results_of(iter(lines), ["a"], where="board", heard=heard, parse=lambda line: computed_of(line, "board")))

    return _lines([{"conditions": CONDITIONS}, COMPUTED, {"end": 1}], read)


def settings() -> Kind:
    from hwnas.runs import Run

    def read() -> None:
        run = Run.open(RUN)
        _ = run.settings.budget, run.settings.scales[:3]
        run.choose(2)

    return _json_file(RUN / "settings.json", read)


def identity() -> Kind:
    from hwnas.runs import Run

    path = RUN / "run.json"
    return _written(path, {"version": 1, "study": "a"}, json_text, lambda: Run.open(RUN).candidates())


def winner() -> Kind:
    import hwnas
    from hwnas.runs import Run, WinnerFolder

    def read() -> None:
        record = WinnerFolder(WINNER).read()
        record.to_json()
        hwnas.describe(str(WINNER))
        hwnas.train(str(RUN), winners=1, epochs=8, augment=False, batch_size=16, accelerator="cpu", precision="fp32")

    Run.open(RUN).candidates()  # which makes what it lacks
    return _json_file(WINNER / "winner.json", lambda: _read_only(read))


def _read_only(read: Callable[[], object]) -> None:
    """Read what a training would be made of, and do not train."""
    from hwnas.verbs import train

    class TrainsError(Exception):
        pass

    def refuse(*arguments: Any) -> Any:
        raise TrainsError

    before, train._train_to_the_end = train._train_to_the_end, refuse
    try:
        read()
    except TrainsError:
        pass
    finally:
        train._train_to_the_end = before


def winner_on_a_page() -> Kind:
    return _json_file(WINNER / "winner.json", _page)


def winner_in_a_report() -> Kind:
    import hwnas

    return _json_file(WINNER / "winner.json", lambda: hwnas.report(str(RUN)))


def scores_on_a_page() -> Kind:
    from hwnas.runs import WinnerFolder, WinnerScores
    from hwnas.runs.scores import Answers, WorstImage

    folder = WinnerFolder(WINNER)
    record = folder.read()
    right = round(1000 * record.test_accuracy)
    said = {0: right, 1: 1000 - right}
    answers = tuple(Answers(right=0, said=name, images=images) for name, images in said.items() if images)
    worst = (WorstImage(image=0, right=0, said=1, confidence=1.0, png="aaaa"),) if said[1] else ()
    scores = WinnerScores(version=1, trial=0, classes=record.data.classes, answers=answers, worst=worst)
    scores.write(folder.scores)
    return _json_file(folder.scores, _page)


def _table_read() -> None:
    import hwnas
    from hwnas.latency import CostModel, LatencyTable
    from hwnas.network import Architecture

    table = LatencyTable.read(TABLE)
    hwnas.tables_check([str(TABLE)])  # which looks at this machine
    hwnas.tables_show(str(TABLE), entries=True)
    hwnas.tables_diff(str(TABLE), "whole.json")
    Path("merged.json").unlink(missing_ok=True)
    hwnas.tables_merge(str(TABLE), "whole.json", out="merged.json")
    architecture = json.loads((ARTEFACT / "card.json").read_text())["architecture"]
    CostModel(table, ()).predict(Architecture.from_json(architecture))


def latency_table() -> Kind:
    value = json.loads(TABLE.read_text())
    value["entries"] = dict(list(value["entries"].items())[:10])
    value["networks"] = value["networks"][:2]
    for measurement in (next(iter(value["entries"].values())), value["networks"][0]):
        measurement["placement"] = PLACEMENT
    TABLE.write_text(json_text(value))
    shutil.copy(TABLE, "whole.json")

    def damage(random: Random) -> bytes:
        if random.random() < 0.5:
            return damaged_tree(random, value, json_text)
        part = random.choice(list(value))  # the entries are most of it
        return json_text({**value, part: with_damage(random, value[part])}).encode()

    return _file(TABLE, damage, _table_read_of_few)


def _table_read_of_few() -> None:
    from hwnas.errors import TableError

    try:
        _table_read()
    except TableError as error:
        if "has no entry" not in str(error):
            raise


def run_file() -> Kind:
    from hwnas.verbs.run import read_plan

    path = Path("a.toml")
    return _written(path, tomllib.loads(RUN_FILE), toml_text, lambda: read_plan(path))


def _other_tensor(random: Random, tensor: Any) -> Any:
    """Return a tensor of another shape, type or content, or none."""
    others = [tensor.reshape(-1), tensor.reshape(-1)[:1], tensor.double(), tensor.long(), tensor * float("nan"), None]
    return random.choice(others)


def checkpoint() -> Kind:
    from safetensors.torch import save

    from hwnas.runs import Run
    from hwnas.training import checkpoint as module
    from hwnas.training.loop import network_training
    from hwnas.training.settings import TrainingSettings

    path = RUN / "winners/0003/checkpoint.safetensors"
    tensors, state = module.load(path)
    whole = path.read_bytes()
    run = Run.open(RUN)
    (candidate,) = run.choose(1, trial=3)
    dataset = run.settings.dataset(12)
    stated = TrainingSettings(**state["training"]["settings"])

    def damage(random: Random) -> bytes:
        if random.random() < 0.4:
            return damaged_bytes(random, whole)
        changed = dict(tensors)
        text = json_text(state)
        if random.random() < 0.7:
            text = damaged_tree(random, state, json_text).decode(errors="replace")
        else:
            name = random.choice(list(tensors))
            tensor = changed.pop(name)
            other = _other_tensor(random, tensor)
            changed |= {random.choice([name, "x"]): other.contiguous()} if other is not None else {}
        metadata = {"state": text, "crc32": str(module.checksum(changed, text))}
        return save(changed, metadata)

    def read() -> None:
        module.settings_in(path)
        training = network_training(candidate.architecture, dataset.whole_train, dataset, stated)
        training.resume(path)
        training.save(Path("again.safetensors"))

    return _file(path, damage, read)


def weights() -> Kind:
    from safetensors.torch import load_file, save

    from hwnas.artefacts.source import load_network
    from hwnas.runs import WinnerFolder
    from hwnas.training import weights as module
    from hwnas.training.module import Network
    from hwnas.training.pretrained import load_own
    from hwnas.training.pretrained import read as read_weights

    path = WINNER / "weights.safetensors"
    folder = WinnerFolder(WINNER)
    architecture, tensors, whole = folder.read().architecture, load_file(path), path.read_bytes()
    network = Network(architecture.graph)

    def damage(random: Random) -> bytes:
        if random.random() < 0.6:
            return damaged_bytes(random, whole[:400] if random.random() < 0.3 else whole)
        changed, name = dict(tensors), random.choice(list(tensors))
        tensor = changed.pop(name)
        other = _other_tensor(random, tensor)
        return save(changed | ({random.choice([name, "x"]): other.contiguous()} if other is not None else {}))

    def read() -> None:
        from hwnas.errors import HwnasError

        faults = []
        for reads in (
            lambda: module.in_common(architecture, path),
            lambda: module.inherit(network, path),
            lambda: load_own(architecture, read_weights(path)),
            lambda: load_network(architecture, folder),
        ):
            try:
                reads()
            except HwnasError as error:
                faults.append(error)
        if faults:
            raise faults[0]

    return _file(path, damage, read)


def torch_weights() -> Kind:
    """A checkpoint as torch saves it."""
    import torch

    from hwnas.network import Architecture
    from hwnas.training.module import Network
    from hwnas.training.pretrained import load_torchvisions
    from hwnas.training.pretrained import read as read_weights

    path, architecture = Path("weights.pth"), Architecture.from_json({"padding": "symmetric", **CHAIN})
    torch.save(Network(architecture.graph).state_dict(), path)
    whole = path.read_bytes()

    def read() -> None:
        load_torchvisions(architecture, read_weights(path))

    return _file(path, lambda random: damaged_bytes(random, whole), read)


KINDS: dict[str, Callable[[], Kind]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        card,
        card_on_a_page,
        card_in_a_report,
        cell_toml,
        cell_json,
        cell_picture,
        cell_largest,
        chain_toml,
        chain_json,
        macro_json,
        check,
        device,
        journal,
        journal_on_a_page,
        journal_in_a_report,
        npz_data,
        idx_data,
        photo,
        results_table,
        bench_settings,
        bench_run,
        lines_of_timing,
        lines_of_computing,
        settings,
        identity,
        winner,
        winner_on_a_page,
        winner_in_a_report,
        scores_on_a_page,
        latency_table,
        run_file,
        checkpoint,
        weights,
        torch_weights,
    )
}
SLOWER = {  # by so many times: pages, and reports with their pictures
    **dict.fromkeys(("card-on-a-page", "journal-on-a-page", "winner-on-a-page", "scores-on-a-page"), 4),
    **dict.fromkeys(("card-in-a-report", "journal-in-a-report", "winner-in-a-report"), 100),
}


def load_modules() -> None:
    """Load what the kinds need: once, for all of them."""
    import logging

    import optuna
    import torch

    import hwnas.datasets.folder
    import hwnas.pages
    import hwnas.verbs.run

    logging.getLogger("hwnas").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    _ = optuna, hwnas
