# Every target works on a machine that has only Python 3.11+, make and a C compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2

.PHONY: install demo serve test test-slow test-browser check format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cpu]' --group dev
	touch $@

demo: install
	$(BIN)/python -m benchmarks.demo

serve: install
	$(BIN)/bitwright serve

# Tests start many processes, and each would compile the packages anew where the environment forbids to keep the result.
test: install
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

test-slow: install
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cluster]'
	$(BIN)/python -m pytest -m slow
	$(BIN)/python -m pytest -m 'hypothesis and not slow' --hypothesis-profile anew

test-browser: install
	$(BIN)/python -m pip install --quiet -c constraints.txt --group browser
	$(BIN)/python -m pytest -m browser

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info
