"""A file for `hwnas run`: all of it is checked before the first step, and the steps get what it says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_images
from PIL import Image
from pretended import write_device

import hwnas
from hwnas.errors import InputError, UnknownNameError
from hwnas.verbs import run as verb
from hwnas.verbs.run import RunOptions, make_plan, read_plan

SEARCH = "max_latency_ms = 2.0\ndata = 'npz:images.npz'\n"


def config(folder: Path, *, out: str = 'out = "runs/a"', search: str = "", more: str = "") -> Path:
    path = folder / "a.toml"
    path.write_text(f"{out}\n[search]\n{SEARCH}{search}\n{more}\n")
    return path


def test_each_step_gets_what_the_file_says(workplace: Path) -> None:
    sections = "[profile]\nnetworks = 8\n[train]\nwinners = 'best:2'\nepochs = 1\n[export]\nfiles = ['model.onnx']\n"
    device = "[device]\nsetting = 'tflite-int8-1t'\nthreads = 3\n"
    plan = read_plan(config(workplace, search="cells = 2\nfilters = [4, 6]\n", more=sections + device))
    for options in (plan.profile, plan.search):
        assert (options.cells, options.filters, options.space) == ((2,), (4, 6), "mobile")
        assert (options.device, options.setting, options.threads) == ("host", "tflite-int8-1t", 3)
    assert (plan.profile.resolution, plan.profile.channels, plan.profile.classes) == ((8,), 1, 3)
    assert (plan.search.out, plan.train.run, plan.export.run) == ("runs/a",) * 3
    assert plan.profile.networks == 8
    assert (plan.train.winners, plan.train.epochs, plan.export.files) == ("best:2", 1.0, ("model.onnx",))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"search": "trials = '12'"}, r"a.toml: \[search\] trials must be a whole number; got '12'$"),
        ({"search": "trials = 0"}, r"\[search\] trials must be above 0; got 0$"),
        ({"search": "cells = 1.5"}, r"\[search\] cells must be whole numbers above 0, such as 8,12,16; got 1.5$"),
        ({"search": "targets = [0.4, 2]"}, r"\[search\] targets must be shares above 0 and up to 1"),
        ({"search": "seed = -1"}, r"\[search\] seed must be 0 or more; got -1$"),
        ({"search": "inherit = 'no'"}, r"\[search\] inherit must be true or false; got 'no'$"),
        ({"search": "skeleton = 'large'"}, r"\[search\] skeleton must be 'cifar' or 'imagenet'; got 'large'$"),
        ({"search": "epochs = nan"}, r"\[search\] epochs must be a finite number; got nan$"),
        ({"search": "strategy = 'magic'"}, r"\[search\] strategy: unknown strategy 'magic'; known: .*progressive"),
        ({"search": "space = 'magic'"}, r"\[search\] space: unknown space 'magic'; known: .*pnas"),
        ({"search": "proxies = ['magic']"}, r"\[search\] proxies: unknown zero-cost proxy 'magic'; known: .*naswot"),
        ({"search": "pruner = 'magic'"}, r"\[search\] pruner: unknown pruner 'magic'; known: .*halving"),
        ({"search": "threads = 1"}, r"\[search\] has no 'threads'; known: cells, .*workers$"),
        ({"more": "[device]\nthreads = '2'"}, r"\[device\] threads must be a whole number; got '2'$"),
        ({"more": "[device]\ndevice = 'magic'"}, r"\[device\]: unknown device 'magic'; known: .*host"),
        ({"more": "[device]\nsetting = 'x'"}, r"\[device\]: unknown setting of device host 'x'; known: .*tflite"),
        ({"more": "[device]\nport = 3"}, r"\[device\] has no 'port'; known: device, setting, threads$"),
        ({"more": "[profile]\nnetworks = -1"}, r"\[profile\] networks must be 0 or more; got -1$"),
        ({"more": "[profile]\nmax_wait = 2"}, r"\[profile\] max_wait must be at most 1; got 2$"),
        ({"more": "[train]\nwinners = 0"}, r"\[train\] winners must be a number of networks above 0, .*; got 0$"),
        ({"more": "[train]\nepochs = -1"}, r"\[train\] epochs must be above 0; got -1$"),
        ({"more": "[train]\naccelerator = 'tpu'"}, r"\[train\]: training: device must be auto or one that is there"),
        ({"more": "[train]\nprecision = 'fp8'"}, r"\[train\] precision must be 'auto', 'fp32', 'bf16' or 'fp16'"),
        ({"more": "[train]\nepoch = 1"}, r"\[train\] has no 'epoch'; known: accelerator, .*winners$"),
        ({"more": "[export]\nfiles = ['model.pb']"}, r"\[export\] files must be some of model.tflite, .*model.pb"),
        ({"more": "[export]\nbatch = 0"}, r"\[export\] batch must be 1 or more; got 0$"),
        ({"more": "[export]\nweights = 'random'"}, r"\[export\] has no 'weights'; known: allow_over_cap, "),
        ({"more": "[serch]\n"}, r"may have the sections device, profile, search, train, export; got 'serch'$"),
        ({"out": "out = 3"}, r"must say where the run goes: out = \"runs/NAME\"; got 3$"),
        ({"out": "out = 'images.npz'"}, r"a.toml: out must be a folder, or a new one's path, and no file; got"),
        (
            {"search": "estimator = 'supernet'\npruner = 'halving'"},
            r"\[search\]: --pruner is for candidates that each go through a whole short training",
        ),
        ({"search": "strategy = 'darts'\nspace = 'nasnet'"}, r"\[search\]: --strategy darts trains all networks of"),
        (
            {"search": "estimator = 'size'", "more": "[train]\nfrom_supernet = true"},
            r"\[train\]: --from-supernet is for runs whose candidates shared .* the run's estimator is size. Leave",
        ),
        (
            {"search": "estimator = 'supernet'", "more": "[train]\nfrom_supernet = true"},
            r"\[train\]: from_supernet needs .* with proxy_filters = 0.5 they have fewer. Leave it out, or write",
        ),
        ({"search": "data_ = 1"}, r"\[search\] has no 'data_'"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_step(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(verb, "apply", None)  # a step that was begun would be another error
    with pytest.raises(InputError, match=message) as caught:
        hwnas.run(config(workplace, **asked))
    assert str(caught.value).startswith(str(workplace / "a.toml"))
    assert isinstance(caught.value, UnknownNameError) == ("unknown" in message)
    assert not (workplace / "runs").exists()


def test_data_that_are_not_there_are_named_with_their_section(workplace: Path) -> None:
    path = workplace / "a.toml"
    path.write_text('out = "runs/a"\n[search]\nmax_latency_ms = 1\ndata = "magic"\n')
    with pytest.raises(UnknownNameError, match=r"a.toml: \[search\] data: unknown data set 'magic'; known: "):
        hwnas.run(path)
    path.write_text('out = "runs/a"\n[search]\ndata = "npz:images.npz"\n')
    with pytest.raises(InputError, match=r"a.toml: \[search\] must have max_latency_ms, the cap in milliseconds"):
        hwnas.run(path)


@pytest.mark.parametrize(("name", "message"), [("none.toml", "which does not"), (".", "must be a file, and no folder")])
def test_a_file_that_is_none_is_named(workplace: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hwnas.run(workplace / name)


def test_winners_that_begin_with_shared_weights_are_planned_where_these_are_wide_enough(workplace: Path) -> None:
    search = "estimator = 'supernet'\nproxy_filters = 1\n"
    plan = read_plan(config(workplace, search=search, more="[train]\nfrom_supernet = true"))
    assert plan.train.from_supernet


def test_a_run_without_a_file_has_the_defaults_and_a_folder_of_the_data_s_name(workplace: Path) -> None:
    plan = make_plan(RunOptions(data="npz:images.npz", max_latency_ms=2.0))
    assert (plan.search.out, plan.train.run, plan.export.run) == ("runs/images",) * 3
    assert (plan.search.max_latency_ms, plan.search.trials, plan.train.epochs) == (2.0, 40, 60.0)
    for options in (plan.profile, plan.search):  # of which profile alone would measure every setting
        assert (options.device, options.setting) == ("host", "tflite-fp32-1t")
    assert (plan.profile.resolution, plan.profile.channels, plan.profile.classes) == ((8,), 1, 3)
    given = {"out": "runs/b", "device": "pretend", "setting": "onnx-fp32-1t", "trials": 3, "epochs": 1.5}
    plan = make_plan(RunOptions(data="npz:images.npz", max_latency_ms=2.0, **given))
    assert plan.search.out == "runs/b"
    assert plan.profile.device == plan.search.device == "pretend"
    assert plan.profile.setting == plan.search.setting == "onnx-fp32-1t"
    assert (plan.search.trials, plan.search.epochs, plan.train.epochs) == (3, 2.0, 1.5)


@pytest.mark.parametrize("data", ["folder:my.photos", "folder:my.photos/", "folder:{}/my.photos"])
def test_a_folder_of_photos_names_its_run(workplace: Path, data: str) -> None:
    for name in ("a", "b"):
        folder = workplace / "my.photos" / name
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = np.full((8, 8, 3), 10 * number + (100 if name == "b" else 0), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    plan = make_plan(RunOptions(data=data.format(workplace), max_latency_ms=2.0))
    assert plan.search.out == "runs/my.photos"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, r"--data and --max-latency-ms\. Type: hwnas run --data folder:PATH --max-latency-ms MS$"),
        ({"data": "npz:images.npz", "out": "b"}, r"hwnas run --data npz:images.npz --max-latency-ms MS --out b$"),
        ({"data": "npz:a.npz", "trials": 3}, r"hwnas run --data npz:a.npz --max-latency-ms MS --trials 3$"),
        ({"max_latency_ms": 12.0}, r"Type: hwnas run --data folder:PATH --max-latency-ms 12$"),
        ({"data": "npz:images.npz", "max_latency_ms": -1.0}, r"^--max-latency-ms must be above 0; got -1$"),
        ({"data": "magic", "max_latency_ms": 1.0}, r"^unknown data set 'magic'; known: "),
        ({"data": "images.npz", "max_latency_ms": 1.0}, r"images.npz is a path: give npz:images.npz$"),
        ({"data": "npz:images.npz", "max_latency_ms": 1.0, "device": "magic"}, r"^unknown device 'magic'; known: "),
        (
            {"config": "a.toml", "trials": 3},
            r"got --trials beside a.toml. Write trials in the file, \[search\], and type",
        ),
        (
            {"config": "a.toml", "epochs": 3.0},
            r"--epochs beside .* in the file, \[train\], and type: hwnas run a.toml$",
        ),
        ({"config": "a.toml", "out": "b"}, r"Write out in the file, above the sections, and type: hwnas run a.toml$"),
    ],
)
def test_too_few_options_and_options_beside_a_file_are_refused_with_what_to_type(
    workplace: Path, asked: dict[str, Any], message: str
) -> None:
    config(workplace)
    with pytest.raises(InputError, match=message):
        hwnas.run(**asked)
    assert not (workplace / "runs").exists()


def test_one_line_does_all_of_it_and_typed_again_goes_on(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the space's smallest networks alone, in the place of all of the default ones."""
    write_device(workplace)
    write_images(workplace / "images.npz", test=90)
    monkeypatch.setattr("hwnas.spaces.mobile.FILTERS", (4,))
    asked: dict[str, Any] = {"data": "npz:images.npz", "max_latency_ms": 2.0, "device": "pretend", "epochs": 1}
    ran = hwnas.run(**asked, trials=1)
    assert capsys.readouterr().err.count("profiling pretend") == 1
    assert ran.searched.trained == 1
    assert Path("runs/images/report.html").is_file()
    assert all(Path(artefact.folder, "model.tflite").is_file() for artefact in ran.exported)
    again = hwnas.run(**asked, trials=1)
    assert again.winners == ran.winners
    assert again.profiled[0].measured_now == 0


def test_a_file_s_search_does_not_profile_what_its_own_step_has(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_device(workplace)
    for name in ("train", "export", "report"):
        monkeypatch.setattr(verb, name, lambda *_: None)
    apply = verb.apply
    monkeypatch.setattr(verb, "apply", lambda step, options: step and hasattr(step, "options") and apply(step, options))
    search = "space = 'mbconv'\ncells = 1\nfilters = 4\nestimator = 'size'\ntrials = 1\nstrategy = 'random'\n"
    ran = hwnas.run(config(workplace, search=search, more="[device]\ndevice = 'pretend'\n[profile]\nnetworks = 3\n"))
    said = capsys.readouterr().err
    assert said.count("profiling pretend") == 1
    assert "is measured first" not in said
    assert ran.profiled[0].networks == 3
