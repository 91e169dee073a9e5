"""A file for `hwnas run`: all of it is checked before the first step, and the steps get what it says."""

from pathlib import Path
from typing import Any

import pytest

import hwnas
from hwnas.errors import InputError, UnknownNameError
from hwnas.verbs import run as verb
from hwnas.verbs.run import read_plan

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
        assert (options.cells, options.filters, options.space) == ((2,), (4, 6), "pnas")
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
