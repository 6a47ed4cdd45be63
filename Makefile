# Twelve verbs at most. `make demo` and `make test` each work alone on a machine with python3 (3.11 or later) and make.
PYTHON ?= python3

.PHONY: setup demo test test-paillier check fix bench clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("python 3.11 or later is needed, this is " + sys.version.split()[0] + "; set PYTHON=") if sys.version_info < (3, 11) else 0'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv/.ready
	.venv/bin/vfl demo

test: .venv/.ready
	.venv/bin/pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# phe is under the GPL: it has an environment of its own, and no other test meets it (docs/adr/0005).
.venv-paillier/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-paillier
	.venv-paillier/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,paillier]'
	@touch $@

test-paillier: .venv-paillier/.ready
	.venv-paillier/bin/pytest -q tests/crypto/paillier tests/vfl/protocols/paillier tests/demo/paillier

check: .venv/.ready
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(MAKE) test

fix: .venv/.ready
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/.ready
	.venv/bin/python benchmarks/encrypted_step.py

clean:
	rm -rf .venv .venv-paillier build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
