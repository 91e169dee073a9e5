#!/usr/bin/env bash
# `import onnxruntime` alone writes an identifier of the machine and a database of events into the user's cache, on Linux.
#
# Guess:    telemetry is of Windows only (so the Privacy.md of older releases); on Linux an import writes nothing, and
#           `onnxruntime.disable_telemetry_events()` turns off what there is.
# Versions: onnxruntime 1.32.0 (wheel of PyPI); CPython 3.11, Linux x86-64; the variable CI not set.
# Seen:     after the import there are ~/.cache/Microsoft/DeveloperTools/.onnxruntime/deviceid (36 characters) and
#           onnxruntime.db, and .ses in TMPDIR; so, too, where disable_telemetry_events() is the first call, which comes
#           after the import. With ORT_DISABLE_TELEMETRY=1 in the environment before the import there is nothing; the
#           variable of the pull request that brought it, ORT_TELEMETRY_DISABLED, is not looked at.
# hwnas:    sets ORT_DISABLE_TELEMETRY=1, unless the user has set it, before it imports onnxruntime: in the process that
#           times models, in its own, and in an artefact's run.py. tests/formats/test_onnx.py looks for the files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 2>/dev/null

# Imports onnxruntime in an empty home, runs a line after it, and prints what files there are.
written() {
    rm -rf "$folder/home" "$folder/tmp"
    mkdir "$folder/home" "$folder/tmp"
    env -i PATH="$PATH" HOME="$folder/home" TMPDIR="$folder/tmp" "${@:2}" \
        "$folder/venv/bin/python" -c "import onnxruntime; $1"
    (cd "$folder" && find home tmp -type f | LC_ALL=C sort | paste -sd' ')
}

files=".cache/Microsoft/DeveloperTools/.onnxruntime"
expected="home/$files/deviceid home/$files/onnxruntime.db tmp/.ses"
test "$(written 'pass')" = "$expected"
test "$(written 'onnxruntime.disable_telemetry_events()')" = "$expected"
test "$(written 'pass' ORT_TELEMETRY_DISABLED=1)" = "$expected"
test -z "$(written 'pass' ORT_DISABLE_TELEMETRY=1)"
echo "as stated"
