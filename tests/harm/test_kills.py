"""The quickest part of kills.py: the program itself works, and one short verb stands being struck."""

import json
import subprocess
import sys
from pathlib import Path


def test_a_short_verb_stands_being_struck() -> None:
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), "--verb", "devices add", "--moments", "2"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = json.loads(done.stdout)
    assert [outcome["signal"] for outcome in outcomes] == ["INT", "TERM"]
    assert all(outcome["struck"] for outcome in outcomes)
