"""A system without fcntl, such as Windows: hwnas is imported, and what must be locked is refused in words."""

import subprocess
import sys

HIDDEN = "import sys; sys.modules['fcntl'] = None\n"


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", HIDDEN + code], capture_output=True, text=True, check=False)


def test_every_name_is_imported_and_help_is_printed() -> None:
    ran = run("import hwnas; names = [getattr(hwnas, name) for name in hwnas.__all__]; print(len(names))")
    assert int(ran.stdout) > 20, ran.stderr
    ran = run("from hwnas.cli.main import main; sys.argv = ['hwnas', '--help']; main()")
    assert ran.returncode == 0, ran.stderr
    assert "profile" in ran.stdout


def test_what_locks_is_refused() -> None:
    ran = run("sys.argv = ['hwnas', 'describe', 'mobilenet-v2']; from hwnas.cli.main import main; main()")
    assert ran.returncode == 0, ran.stderr
    ran = run("sys.argv = ['hwnas', 'profile', 'pretend']; from hwnas.cli.main import main; main()")
    assert ran.returncode == 2
    assert "as on Windows. Type the same command in WSL" in ran.stderr
    assert "Traceback" not in ran.stderr
