# Each target does its own set-up. Variables: VENV, PYTHON, ARGS (flags of `serve` or of pytest).
VENV ?= .venv
BIN := $(VENV)/bin
SHELL := /bin/sh
# Parts of the tests that have a target of their own, because of what they need.
APART := clients deploy drain faults hosts hostile observability page soak
FUZZ_SECONDS ?= 600
LOCK ?= cpu
FUZZ_TARGETS := pictures data_urls prompts detokenizer requests
.PHONY: serve test $(APART:%=test-%) soak test-description test-storm fuzz sbom
.PHONY: lint types format docs chart eval bench screenshots clean

serve: $(VENV)/.serve
	$(BIN)/internvl-serve serve $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses 2 $(APART:%=--ignore tests/%) $(ARGS)

# Clients of the field in environments of their own; needs node and npm.
test-clients: $(VENV)/.test
	$(BIN)/python -m pytest tests/clients $(ARGS)

# Two hosts as network namespaces; needs root.
test-hosts: $(VENV)/.test
	$(BIN)/python -m pytest tests/hosts $(ARGS)

# Processes that are killed, devices that fail, disks that are full.
test-faults: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses 2 tests/faults $(ARGS)

# What strangers may send, against the daemon itself.
test-hostile: $(VENV)/.test
	$(BIN)/python -m pytest tests/hostile --timeout 600 $(ARGS)

# Mixed traffic for SOAK_MINUTES (30), with the engine killed twice: nothing lost, nothing leaked.
soak test-soak: $(VENV)/.test
	$(BIN)/python -m pytest tests/soak --timeout 0 $(ARGS)

# A rolling restart behind nginx under load; installs Debian's nginx where there is none.
test-drain: $(VENV)/.test
	scripts/install_nginx
	$(BIN)/python -m pytest tests/drain $(ARGS)

# More of what `make test` does a little of: requests made from our OpenAPI description.
test-description: $(VENV)/.test
	DESCRIPTION_EXAMPLES=10 $(BIN)/python -m pytest tests/api/test_description.py $(ARGS)

# Each target for FUZZ_SECONDS, guided by coverage; the corpora are kept in .cache/fuzz.
fuzz: $(VENV)/.fuzz
	set -e; for target in $(FUZZ_TARGETS); do \
	    $(BIN)/python -m tests.fuzz.run $$target $(FUZZ_SECONDS); done

# Answers within forty schemas, sixteen at a time.
test-storm: $(VENV)/.test
	STORM_GENERATIONS=2000 $(BIN)/python -m pytest tests/e2e/test_grammar_storm.py $(ARGS)

# The playground in a real browser; installs Debian's Chromium where there is none; needs npm.
test-page: $(VENV)/.test
	scripts/page_tools .cache/page
	$(BIN)/python -m pytest --numprocesses 2 --timeout 300 tests/page $(ARGS)

# The README's pictures of the playground.
screenshots: $(VENV)/.test
	scripts/page_tools .cache/page
	$(BIN)/python -m tests.page.screenshots docs/images $(ARGS)

# Rules and dashboard against a real Prometheus; installs Debian's where it is missing.
test-observability: $(VENV)/.test
	scripts/install_prometheus
	$(BIN)/python -m pytest tests/observability $(ARGS)

# What a fresh environment holds by the lock of LOCK (cpu or cuda), as CycloneDX.
sbom: $(VENV)/.test
	PYTHON=$(BIN)/python CYCLONEDX=$(BIN)/cyclonedx-py scripts/sbom $(LOCK) .cache/sbom

# Chart and images with the real tools; needs root on Debian, node and npm, and installs the rest.
test-deploy: $(VENV)/.deploy
	$(BIN)/python -m pytest tests/deploy $(ARGS)

# What the chart takes from elsewhere: settings, alerts, dashboard, the table of its README.
chart: $(VENV)/.deploy
	$(BIN)/python -m scripts.chart_files
	.cache/deploy/node_modules/.bin/readme-generator --values deploy/helm/internvl-serve/values.yaml \
	    --readme deploy/helm/internvl-serve/README.md >/dev/null

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.test
	$(BIN)/python scripts/settings_page.py > docs/settings.md
	$(BIN)/python scripts/api_page.py > docs/api.new && mv docs/api.new docs/api.md

# Share of right answers of the demo model, 1,000 scenes; the answers in .cache/eval.json.
eval: $(VENV)/.test
	$(BIN)/python -m benchmarks.eval_demo --json .cache/eval.json $(ARGS)

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.step_overhead

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/.serve: pyproject.toml
	scripts/install $(VENV)
	touch $@

$(VENV)/.test: pyproject.toml
	scripts/install $(VENV) test
	touch $@ $(VENV)/.serve

$(VENV)/.fuzz: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[fuzz]"
	touch $@

$(VENV)/.deploy: $(VENV)/.test tests/deploy/package-lock.json scripts/install_deploy_tools
	scripts/install_deploy_tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[deploy]"
	touch $@
