"""Several devices with a cap on each: what a search trains keeps all caps, as its tables say and as it measures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FILTERS, write_images
from pretended import FORMULA, write_device

import hwnas
from hwnas.cli.encode import encoded
from hwnas.cli.show_runs import show_searched
from hwnas.device import Job, load_device
from hwnas.device.transports import pretend
from hwnas.errors import BudgetError, ExportError, InputError, TableError, UnknownNameError
from hwnas.latency import Budget, CellCosts, CostModel, find_table, together
from hwnas.network import ladder
from hwnas.runs import Run, capped_devices
from hwnas.runs.study import repair_journal
from hwnas.spaces import pnas, random_parameters
from hwnas.verbs.run import RunOptions, make_plan

# One is slow where it computes, the other for each operator and byte: networks come in another order on each.
SLOW = FORMULA.model_copy(update={"operator_us": 0.5, "convolution_ns": 4.0, "depthwise_ns": 4.0, "byte_ns": 0.1})
BUSY = FORMULA.model_copy(update={"operator_us": 20.0, "convolution_ns": 0.1, "depthwise_ns": 0.1, "byte_ns": 1.0})
ONE, OTHER = "slow/tflite-fp32-1t", "busy/tflite-fp32-1t"
CAPS = {ONE: 0.45, OTHER: 1.6}
DEVICES = "slow=0.45ms,busy/tflite-fp32-1t=1.6ms"
TINY: dict[str, Any] = {
    "space": "pnas",
    "data": "npz:images.npz",
    "cells": (1,),
    "filters": FILTERS,
    "estimator": "size",
    "surrogate": "mlp",
    "trials": 8,
    "fill": 0.25,
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images, two devices and their tables."""
    folder = tmp_path_factory.mktemp("several")
    write_images(folder / "images.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, formula in {"slow": SLOW, "busy": BUSY}.items():
            write_device(folder, formula, name=name)
            hwnas.profile(name, space="pnas", cells=(1,), filters=FILTERS, resolution=(8,), classes=3, networks=8)
        yield folder


@pytest.fixture
def workplace(tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the same images, devices and tables."""
    for name in ("images.npz", "devices", "latency_tables"):
        (tmp_path / name).symlink_to(tables / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("strategy", ["random", "evolution", "progressive", "tpe"])
def test_what_is_trained_keeps_the_cap_of_each_device_as_measured_there(workplace: Path, strategy: str) -> None:
    found = hwnas.search(out="run", device=DEVICES, strategy=strategy, **TINY)
    trials = Run.open("run").trials().refresh()
    assert found.trained == TINY["trials"]
    bound = set()
    for record in trials.in_state("trained"):
        assert record.deployed is not None
        assert record.values is not None
        assert list(record.latencies) == [ONE, OTHER]
        shares = {name: latency.ms / CAPS[name] for name, latency in record.latencies.items()}
        assert record.values[1] == pytest.approx(max(shares.values()))
        assert max(shares.values()) <= record.target
        bound.add(max(shares, key=lambda name: shares[name]))
        for name, latency in record.latencies.items():
            on = "" if name == ONE else name
            timed = trials.measurement(record.deployed.architecture, device=on)
            assert (timed is None) == (latency.measured_ms is None)
            assert timed is None or timed.ms == pytest.approx(latency.ms)
            assert latency.predicted_ms == pytest.approx(latency.ms, rel=0.3)
        constraints = trials.study.get_trials()[record.number].constraints
        assert {"latency", f"latency {ONE}", f"latency {OTHER}"} <= constraints.keys()
        assert max(constraints.values()) <= 0
    for record in trials.in_state("left out"):
        assert record.over or "the same network" in record.left_out
    assert [c.cap_share for c in found.front] == sorted(c.cap_share or 0.0 for c in found.front)


def test_each_device_binds_some_network(workplace: Path) -> None:
    hwnas.search(out="run", device=DEVICES, strategy="random", **{**TINY, "trials": 16})
    worst = set()
    for record in Run.open("run").trials().refresh().in_state("trained"):
        worst.add(max(CAPS, key=lambda name: record.latencies[name].ms / CAPS[name]))
    assert worst == {ONE, OTHER}


def test_costs_on_two_devices_are_the_larger_share_of_a_cap(workplace: Path) -> None:
    scales = ladder((1,), FILTERS, (8,), classes=3, channels=1)
    tables = [find_table(load_device(name), load_device(name).setting()) for name in ("slow", "busy")]
    cells = [CellCosts(table, scales, operations=pnas.OPERATIONS) for table in tables if table]
    walked = [CostModel(table, scales) for table in tables if table]
    chosen = [parameters for parameters in random_parameters(pnas, 20, seed=0) if parameters["blocks"] == 3]
    codes = np.concatenate([pnas.code(parameters) for parameters in chosen])
    networks = [[pnas.architecture(parameters, scale) for scale in scales] for parameters in chosen]
    caps_ms = (1.0, 1.6)
    shares = [model.of(codes).ms / cap_ms for model, cap_ms in zip(cells, caps_ms, strict=True)]
    assert 0 < (shares[0] > shares[1]).mean() < 1
    both = together(cells, caps_ms)
    assert isinstance(both, CellCosts)
    np.testing.assert_allclose(both.of(codes).ms, np.maximum(*shares))
    np.testing.assert_allclose(together(walked, caps_ms).walked(networks).ms, np.maximum(*shares))
    found, latency = both.largest_of(codes, Budget(1.0), [1.0])
    upper = both.of(codes).upper_ms
    assert (found[:, 0] == [max(np.flatnonzero(row <= 1.0), default=-1) for row in upper]).all()
    assert (np.isnan(latency) == (found < 0)).all()


def test_a_search_that_was_stopped_measures_nothing_twice_and_comes_to_the_same(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[str] = []
    original = pretend.Transport.time

    def time(transport: pretend.Transport, job: Job) -> Any:
        timed.extend(f"{transport._device.name} {Path(model['path']).read_bytes().hex()}" for model in job.models)
        if job.models and len(timed) == stop_at:
            raise KeyboardInterrupt
        return original(transport, job)

    monkeypatch.setattr(pretend.Transport, "time", time)
    stop_at = 0
    whole = hwnas.search(out="whole", device=DEVICES, strategy="evolution", **TINY)
    assert len(timed) == len(set(timed))
    assert {name.split()[0] for name in timed} == {"slow", "busy"}
    for number in (2, 4, 5):  # of a network the first device had been asked, and not yet the other
        timed.clear()
        stop_at = number
        with pytest.raises(KeyboardInterrupt):
            hwnas.search(out=f"stopped{number}", device=DEVICES, strategy="evolution", **TINY)
        repair_journal(Path(f"stopped{number}/journal.log"))
        asked, stop_at = timed.pop(), 0  # in vain
        found = hwnas.search(out=f"stopped{number}", device=DEVICES, strategy="evolution", **TINY)
        assert timed.count(asked) == 1
        assert len(timed) == len(set(timed))
        assert found.front == whole.front


def test_one_device_with_its_cap_is_that_device_and_max_latency_ms(workplace: Path) -> None:
    short = hwnas.search(out="short", device="slow=0.45ms", strategy="random", **TINY)
    long = hwnas.search(out="long", device="slow", max_latency_ms=0.45, strategy="random", **TINY)
    assert short.front == long.front
    assert Run.open("short").settings == Run.open("long").settings
    assert "--max-latency-ms 0.45" in str(Run.open("short").settings.search_command("short"))
    assert not short.front[0].latencies


def test_a_run_goes_on_with_the_same_devices_alone_and_says_how(workplace: Path) -> None:
    hwnas.search(out="run", device=DEVICES, strategy="random", **{**TINY, "trials": 2})
    settings = Run.open("run").settings
    command = settings.search_command("run").argv
    assert command[command.index("--device") + 1] == f"{ONE}=0.45ms,{OTHER}=1.6ms"
    assert not {"--max-latency-ms", "--setting", "--threads"} & set(command)
    assert f"--device {ONE}=MSms,{OTHER}=MSms" in str(settings.raised_command(["latency"]))
    again = hwnas.search(out="run", device=f"{ONE}=0.45ms,{OTHER}=1.6ms", strategy="random", **{**TINY, "trials": 3})
    assert again.trained == 3
    for other in ("slow=0.45ms,busy=1.7ms", "slow=0.45ms"):
        with pytest.raises(InputError, match="was begun with further = "):
            hwnas.search(out="run", device=other, strategy="random", **TINY)


def test_predictions_alone_keep_all_caps(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = hwnas.search(out="run", device=DEVICES, predicted=True, strategy="evolution", **TINY)
    for candidate in Run.open("run").candidates():
        for name, latency in candidate.latencies.items():
            assert latency.measured_ms is None
            assert latency.predicted_ms * (1 + latency.predicted_error) <= CAPS[name] * candidate.target * (1 + 1e-9)
    show_searched(found)
    printed = capsys.readouterr().out
    assert ONE in printed.replace("\n", "")
    assert "share of a cap" in " ".join(printed.split())
    first = json.loads(encoded(found))["front"][0]
    assert first["latencies"][OTHER]["predicted_ms"] == found.front[0].latencies[OTHER].predicted_ms


def test_a_plan_and_the_first_profile_are_of_each_device(tables: Path, tmp_path: Path, monkeypatch: Any) -> None:
    write_images(tmp_path / "images.npz")
    for name, formula in {"slow": SLOW, "busy": BUSY}.items():
        write_device(tmp_path, formula, name=name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latency_tables").mkdir()
    (tmp_path / "latency_tables" / "slow").symlink_to(tables / "latency_tables" / "slow")
    with pytest.raises(TableError, match="device busy must be profiled"):
        hwnas.search(out="run", device=DEVICES, profile=False, **TINY)
    plan = hwnas.search(out="run", device=DEVICES, plan=True, **TINY).plan
    assert plan is not None
    assert not plan.lacking
    assert "busy has no latency table" in plan.further[OTHER].lacking
    assert not Path("run").exists()
    assert hwnas.search(out="run", device=DEVICES, strategy="random", **{**TINY, "trials": 2}).trained == 2
    assert Path("latency_tables/busy/tflite-fp32-1t.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "slow=12s"}, r"--device must be a name, or caps as NAME=MSms .*; got 'slow=12s'"),
        ({"device": "slow=1ms,busy"}, r"such as pixel8=12ms,pi4=40ms; got 'busy'"),
        ({"device": "slow=0ms"}, "got 'slow=0ms'"),
        ({"device": "slow=1ms,slow/tflite-fp32-1t=2ms"}, "may have one cap; got 2 of slow/tflite-fp32-1t in --device"),
        ({"device": "slow=1ms", "max_latency_ms": 3.0}, "got 3 beside --device 'slow=1ms'. Leave one of them out"),
        ({"device": DEVICES, "setting": "tflite-fp32-1t"}, "write NAME/SETTING=MSms"),
        ({"device": "slow"}, "--max-latency-ms must be given, or a cap .* type: --device slow=MSms"),
    ],
)
def test_caps_that_cannot_be_are_refused_in_words(workplace: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hwnas.search(out="run", **{**TINY, **options})
    assert not Path("run").exists()


def test_a_device_may_be_a_file_and_have_two_settings(workplace: Path) -> None:
    asked = "pretend/tflite-fp32-1t=1ms,pretend/onnx-fp32-2t=2 ms,devices/slow.toml=3e-1ms"
    devices = capped_devices(asked, setting=None, threads=None, max_latency_ms=None)
    assert [str(capped.record) for capped in devices] == [
        "pretend/tflite-fp32-1t=1ms",
        "pretend/onnx-fp32-2t=2ms",
        "slow/tflite-fp32-1t=0.3ms",
    ]
    with pytest.raises(UnknownNameError, match="tflite-fp33"):
        capped_devices("slow/tflite-fp33-1t=1ms", setting=None, threads=None, max_latency_ms=None)


def test_caps_that_nothing_keeps_are_named_with_the_device(workplace: Path) -> None:
    told = r"fastest network is predicted .* Raise the caps in --device \(got busy/tflite-fp32-1t=0.001ms\)"
    for plan in (True, False):
        with pytest.raises(BudgetError, match=told):
            hwnas.search(out="run", device="slow=0.45ms,busy=0.001ms", plan=plan, **TINY)


def test_a_runs_file_takes_the_same_words_and_profiles_each_device(workplace: Path) -> None:
    Path("run.toml").write_text(
        f'out = "run"\n[device]\ndevice = "{DEVICES}"\n[search]\ndata = "npz:images.npz"\ncells = [1]\n'
    )
    plan = make_plan(RunOptions(config="run.toml"))
    assert [(options.device, options.setting) for options in (plan.profile, *plan.further)] == [
        ("slow", "tflite-fp32-1t"),
        ("busy", "tflite-fp32-1t"),
    ]
    written = hwnas.init("made.toml", data="npz:images.npz", device=DEVICES, yes=True)
    assert f'device = "{DEVICES}"' in Path(written.path).read_text()
    assert len(make_plan(RunOptions(config="made.toml")).further) == 1


def test_winners_are_exported_checked_and_timed_for_each_device_and_the_page_has_a_front_for_each(
    workplace: Path,
) -> None:
    hwnas.search(out="run", device=DEVICES, strategy="random", **{**TINY, "trials": 6})
    hwnas.train("run", winners=1, epochs=1, augment=False, batch_size=8)
    (winner,) = Run.open("run").choose(1)
    exported = hwnas.export("run", files=["model.tflite", "model.onnx"])
    cards = {f"{artefact.card.device}/{artefact.card.setting}": artefact.card for artefact in exported}
    assert [Path(artefact.folder).name for artefact in exported] == [
        f"{winner.trial:04d}",
        f"{winner.trial:04d}-busy-tflite-fp32-1t",
    ]
    for name, card in cards.items():
        assert card.cap_ms == CAPS[name]
        assert card.predicted_ms == winner.latencies[name].predicted_ms
        assert card.own_file is not None
        assert card.own_file.measured_ms == pytest.approx(winner.latencies[name].ms, rel=0.02)
    assert [list(card.files) for card in cards.values()] == [["model.tflite", "model.onnx"], ["model.tflite"]]
    assert [e.folder for e in hwnas.export("run", files=["model.tflite", "model.onnx"])] == [e.folder for e in exported]
    page = Path(hwnas.report("run").page).read_text()
    assert "the front of that device alone" in page
    assert f"{cards[OTHER].files['model.tflite'].measured_ms:.3f}, 1.600" in page


def test_an_artefact_over_the_cap_of_a_further_device_is_refused(workplace: Path) -> None:
    hwnas.search(out="run", device=DEVICES, strategy="random", **{**TINY, "trials": 2})
    hwnas.train("run", winners=1, epochs=1, augment=False, batch_size=8)
    settings = json.loads(Path("run/settings.json").read_text())
    settings["further"][0]["max_latency_ms"] = 0.01
    Path("run/settings.json").write_text(json.dumps(settings))
    with pytest.raises(ExportError, match=r"busy-tflite-fp32-1t: model.tflite must run in 0.01 ms on busy") as refused:
        hwnas.export("run", files=["model.tflite"])
    assert [artefact.card.device for artefact in refused.value.exported] == ["slow"]
    assert "is over the cap" in Path(hwnas.report("run").page).read_text()


def test_finalists_that_were_only_predicted_are_measured_on_each_device(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hwnas.search(out="run", device=DEVICES, predicted=True, strategy="random", **{**TINY, "trials": 4})
    settings = json.loads(Path("run/settings.json").read_text())
    Path("run/settings.json").write_text(json.dumps({**settings, "predicted": False}))
    hwnas.train("run", winners=1, finalists=2, epochs=1, augment=False, batch_size=8)
    assert "was only predicted; measured on busy/tflite-fp32-1t" in capsys.readouterr().err
    assert len(list(Path("run/finalists").glob("*-busy-tflite-fp32-1t-latency.json"))) == 2
