# Each target makes .venv by itself when it is missing or older than what it is made from.
# ARGS goes to the command: make demo ARGS=--app
VENV := .venv/.stamp
BIN := .venv/bin
ARGS ?=
WORKERS ?= 2

.PHONY: help demo run install test test-long test-random check format bench bench-full locale clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV): pyproject.toml constraints.txt .ci/venv
	@./.ci/venv
	@touch $@

demo: $(VENV) ## the whole loop on the shipped sample, in a few minutes
	@$(BIN)/h2q-tui demo $(ARGS)

run: $(VENV) ## open the app
	@$(BIN)/h2q-tui $(ARGS)

install: ## put h2q-tui on the PATH (uv or pipx)
	@./.ci/install

test: $(VENV) ## the tests, two at a time
	@$(BIN)/python -m tests.smollm2
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not long" $(ARGS)

test-long: $(VENV) ## the tests that take minutes
	@$(BIN)/python -m tests.smollm2
	@$(BIN)/python -m pytest -m long $(ARGS)

test-random: $(VENV) ## the property tests, on examples that are drawn again
	@$(BIN)/python -m pytest -n $(WORKERS) --hypothesis-profile=random $$(grep -rl "import.*hypothesis\|from hypothesis" tests --include=test_*.py) $(ARGS)

check: $(VENV) ## style, types, import contracts and the structure in figures
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m bench.structure --strict

format: $(VENV) ## put the code in form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV) ## the benchmarks in a short form, each a ratio
	@$(BIN)/python -m bench $(ARGS)

bench-full: $(VENV) ## the benchmarks at full length, added to bench/results.jsonl
	@$(BIN)/python -m bench --full --save $(ARGS)

locale: $(VENV) ## collect the words of the program, bring the catalogs up to date, compile them
	@mkdir -p build
	@$(BIN)/pybabel -q extract --no-default-keywords -k _ -k n_:1,2 -k N_ -k p_:1c,2 --add-location=file --sort-output --no-wrap \
		--project=h2q-tui --output-file=build/h2q-tui.pot tui engine
	@$(BIN)/pybabel -q update --domain=h2q-tui --locale=zh --no-wrap --no-fuzzy-matching --ignore-obsolete \
		--ignore-pot-creation-date --input-file=build/h2q-tui.pot --output-dir=data/locale
	@# Not `pybabel compile`: it takes the "% o" of "70 % of …" for a field of the old kind and refuses.
	@$(BIN)/python -c "from babel.messages import mofile, pofile; p = 'data/locale/zh/LC_MESSAGES/h2q-tui'; \
		mofile.write_mo(open(p + '.mo', 'wb'), pofile.read_po(open(p + '.po', 'rb'), locale='zh'))"
	@echo "data/locale is up to date; untranslated words: make test ARGS=tests/contract/test_messages.py"

clean: ## remove .venv and what the tools left
	rm -rf .venv build dist .mypy_cache .ruff_cache .hypothesis .pytest_cache
