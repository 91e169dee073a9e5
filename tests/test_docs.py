"""docs/: the site is built without a warning and asks nothing of other hosts; what its first page shows works."""

import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Fetched(HTMLParser):
    """What a page fetches by itself: a link that is only followed when it is clicked is none."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("rel") not in ("canonical", "next", "prev") and (address := given.get(LOADED.get(tag, ""))):
            self.addresses.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with every warning an error: a broken link or anchor, a page that is in no menu."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={folder}"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_page_is_in_the_site_and_fetches_nothing_from_elsewhere(site: Path) -> None:
    written = {path.parent.name if path.parent != site else "index" for path in site.rglob("index.html")}
    assert written >= {page.stem for page in PAGES}
    for path in site.rglob("*.html"):
        fetched = Fetched(path.read_text()).addresses
        assert fetched, path
        assert not [address for address in fetched if re.match(r"https?:|//", address)], path


def test_the_verbs_stand_in_the_site_with_their_options(site: Path) -> None:
    text = (site / "api" / "index.html").read_text()
    assert all(f'id="hwnas{verb}"' in text for verb in ("profile", "search", "train", "export", "report", "run"))
    assert "max_latency_ms: cap on the latency" in text


def blocks(page: Path, language: str) -> list[str]:
    """Return the page's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_in_python_are_python(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


@pytest.mark.timeout(900)  # a minute on an idle core
def test_what_the_first_page_shows_can_be_typed(tmp_path: Path) -> None:
    """As it stands there, but for a cap and trials that take seconds, and with a formula in the place of the host."""
    random = np.random.default_rng(0)
    for name, grey in (("cat", 60), ("dog", 130), ("owl", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = grey + random.integers(-20, 20, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{number}.png")
    (tmp_path / "devices").mkdir()
    device = (ROOT / "devices" / "pretend.toml").read_text().replace('name = "pretend"', 'name = "host"')
    (tmp_path / "devices" / "host.toml").write_text(device)
    shown = [line for block in blocks(ROOT / "docs" / "index.md", "sh") for line in block.splitlines()]
    assert [line.split()[1] for line in shown] == ["run", "search", "search", "train", "export", "report"]
    quick = {"run": "--trials=2 --epochs=0.1", "train": "--epochs=0.1"}
    quick["search"] = "--trials=2 --filters=4,8 --estimator=size"
    trusting = {**os.environ, "HWNAS_TRUST": "1"}
    for line in shown:
        _, verb, *words = shlex.split(line.replace("--max-latency-ms 12", "--max-latency-ms 0.1"))
        command = [sys.executable, "-m", "hwnas.cli", verb, *words, *quick.get(verb, "").split()]
        said = subprocess.run(
            command, cwd=tmp_path, env=trusting, capture_output=True, text=True, timeout=800, check=False
        )
        assert said.returncode == 0, f"{line}\n{said.stdout[-2000:]}{said.stderr[-2000:]}"
    assert list((tmp_path / "export" / "photos").glob("*/model.tflite"))
    assert (tmp_path / "runs" / "a" / "report.html").exists()
