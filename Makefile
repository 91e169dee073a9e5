# `make demo`: the whole of hwnas on this machine. `make test`: all checks, as CI runs them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OLDER := $(VENV)/tflite-runtime
MEDIAPIPE := $(VENV)/mediapipe
PROCESSES = $$($(PYTHON) -c 'import os; print(os.cpu_count() + 1)')  # one more than cores: some tests wait

# The site of docs/, into site/.
docs: install
	$(BIN)/mkdocs build --strict

.PHONY: demo test docs install data adb sshd chromium arm c++ kotlin tflite-runtime mediapipe clean

demo: install data
	$(BIN)/hwnas run demo.toml

test: install data adb sshd chromium arm c++ kotlin tflite-runtime mediapipe
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not alone" --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
	$(BIN)/pytest -m alone

install: $(INSTALLED)

# Debian keeps venv in a package of its own.
$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import ensurepip' || ./apt-install python3-venv
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# Where there is no apt-get, or no root, hwnas takes torchvision's copy of Fashion-MNIST.
data:
	test -d /usr/share/datasets/fashion-mnist || ./apt-install dataset-fashion-mnist || true

# For the tests of phones, which are skipped without it.
adb:
	command -v adb >/dev/null || ./apt-install adb || true

# For the tests of boards, which are skipped without it. They start one of their own, on loopback.
sshd:
	PATH="$$PATH:/usr/sbin" && command -v sshd >/dev/null || ./apt-install openssh-server || true

# For the tests of the report in a browser, which are skipped without it.
chromium:
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || ./apt-install chromium || true

# For the tests on an emulated Arm, which are skipped without it: made once, in the user's cache.
arm: install
	command -v qemu-aarch64 >/dev/null && command -v cc >/dev/null || ./apt-install qemu-user gcc libc6-dev || true
	$(BIN)/hwnas devices setup arm64-qemu || true

# For the test of an artefact's fragment in C++, which is skipped without it.
c++:
	command -v c++ >/dev/null || ./apt-install g++ || true

# For the test of its fragment in Kotlin, which is skipped without it.
kotlin:
	command -v kotlinc >/dev/null && command -v java >/dev/null || ./apt-install kotlin default-jre-headless || true

# For the tests of files in the runtime that boards in the field have, which are skipped without it: it takes numpy 1,
# and there is none for a Python after 3.11.
tflite-runtime: install
	test -e $(OLDER)/.installed || { $(PYTHON) -m venv $(OLDER) && $(OLDER)/bin/pip install --quiet \
	    --disable-pip-version-check 'tflite-runtime==2.14.0' 'numpy<2' && touch $(OLDER)/.installed; } || true

# For the tests of files for MediaPipe's tools, which are skipped without it: it needs much that hwnas does not.
mediapipe: install
	test -e $(MEDIAPIPE)/.installed || { $(PYTHON) -m venv $(MEDIAPIPE) && $(MEDIAPIPE)/bin/pip install --quiet \
	    --disable-pip-version-check 'mediapipe==1.2.3' && touch $(MEDIAPIPE)/.installed; } || true

clean:
	rm -rf $(VENV) runs/demo export/demo latency_tables/host
