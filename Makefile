# Footfall's commands. `make help` lists them. What needs more than a line lives in deploy/setup/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

setup   := deploy/setup
stamps  := target/setup
release := target/release/footfall

tracker := ingest/tracker
web     := dashboard/web
e2e     := deploy/tests/e2e

requirements := $(shell find deploy/tests -name requirements.txt -not -path '*/node_modules/*' 2>/dev/null)

# Whatever a bundle is made from. Folders are in it, so that a file that goes is noticed as one that comes is.
sources = $(shell find $(1) -mindepth 1 \( -name node_modules -o -name dist -o -name package -o -name build -o -name test -o -name '.*' \) -prune -o -print)

# A bundle that somebody deleted is built again, whatever its stamp says.
ifeq ($(wildcard $(tracker)/dist/*),)
$(shell rm -f $(stamps)/tracker)
endif
ifeq ($(wildcard $(web)/dist/index.html),)
$(shell rm -f $(stamps)/web)
endif

##@ Use

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\n  make run DEMO=1          with synthetic visitors\n  make run ARGS="--help"   options of `footfall standalone`\n'

.PHONY: run
run: build setup-engine ## Install what is missing, build, and start everything on this machine
	@DEMO='$(DEMO)' exec $(setup)/run.sh $(release) $(ARGS)

.PHONY: build
build: setup-build $(stamps)/tracker $(stamps)/web ## The release binary, with tracker and dashboard in it
	@cargo build --release --locked -p footfall

.PHONY: tracker web
tracker: $(stamps)/tracker
web: $(stamps)/web

##@ Work on it

.PHONY: setup
setup: setup-tests ## Everything that build and tests need, without building

.PHONY: test
test: setup-tests $(stamps)/tracker $(stamps)/web ## All tests, the browser ones included
	@$(setup)/test.sh

.PHONY: test-kafka
test-kafka: setup-tests $(stamps)/tracker $(stamps)/web ## The contract suite, the load audit and the faults of the aggregator, on Apache Kafka
	@$(setup)/system.sh --kafka
	@$(setup)/test-kafka.sh

.PHONY: lint
lint: setup-tests $(stamps)/tracker $(stamps)/web ## rustfmt, clippy, licences, eslint, tsc, shellcheck
	@$(setup)/lint.sh

.PHONY: fuzz
fuzz: setup-build ## Fuzz targets of the edge, FUZZ_SECONDS (30) each
	@$(setup)/fuzz.sh

.PHONY: schemas
schemas: ## Write the JSON schemas and the tables of schemas/PROTOCOL.md anew from the types
	@FOOTFALL_WRITE=1 cargo test --quiet --locked -p footfall-schemas --test wire

.PHONY: bench
bench: build setup-engine ## Load through the release binary: events a second, and the audit of all of them
	@$(setup)/bench.sh $(release)

.PHONY: bench-ingest bench-hold
bench-ingest: build ## What a node costs by connection and by event; writes ingest/benches/RESULTS.md
	@$(setup)/bench-ingest.sh $(release)

bench-hold: build ## 100,000 connections held for ten minutes; writes ingest/benches/RESULTS.md
	@$(setup)/bench-ingest.sh $(release) hold

.PHONY: bench-aggregator
bench-aggregator: build setup-engine ## What the aggregator costs, beside ClickHouse alone; writes aggregator/benches/RESULTS.md
	@$(setup)/bench-aggregator.sh $(release)

.PHONY: bench-dashboard
bench-dashboard: build setup-engine ## What a viewer costs, beside Centrifugo; writes dashboard/benches/RESULTS.md
	@$(setup)/bench-dashboard.sh $(release)

.PHONY: bench-tracker
bench-tracker: $(stamps)/tracker ## Sizes of the tracker's files beside other trackers'; writes ingest/tracker/bench/SIZES.md
	@$(setup)/bench-tracker.sh

.PHONY: screenshots
screenshots: build setup-tests ## Pictures of the live page and the demo site, for the README
	@FOOTFALL_BIN="$(CURDIR)/$(release)" CHROMIUM="$$($(setup)/browser.sh)" npm run --silent --prefix $(e2e) screenshots

.PHONY: clean
clean: ## Remove what was built and installed here; not the tables, not the user's cache
	@cargo clean --quiet
	@rm -rf .venv $(tracker)/package $(foreach dir,$(tracker) $(web) $(e2e),$(dir)/node_modules $(dir)/dist)
	@echo "kept: footfall-data/ and $${XDG_CACHE_HOME:-$$HOME/.cache}/footfall"

# The parts of `setup`. Each is cheap when there is nothing to do.

.PHONY: setup-build setup-tests setup-system setup-system-tests setup-engine

setup-system:
	@$(setup)/system.sh

setup-system-tests:
	@$(setup)/system.sh --tests

setup-engine: | setup-system
	@$(setup)/engine.sh

setup-build: $(stamps)/crates $(tracker)/node_modules/.package-lock.json $(web)/node_modules/.package-lock.json

setup-tests: setup-system-tests setup-engine setup-build $(e2e)/node_modules/.package-lock.json .venv/.installed

$(stamps)/crates: Cargo.lock | setup-system
	@$(setup)/crates.sh
	@mkdir -p $(@D) && touch $@

%/node_modules/.package-lock.json: %/package-lock.json | setup-system
	@$(setup)/npm.sh $*

.venv/.installed: $(requirements) | setup-system-tests
	@$(setup)/python.sh $(requirements)

$(stamps)/tracker: $(tracker)/node_modules/.package-lock.json $(call sources,$(tracker))
	@echo '==> tracker'
	@npm run --silent --prefix $(tracker) build
	@mkdir -p $(@D) && touch $@

$(stamps)/web: $(web)/node_modules/.package-lock.json $(call sources,$(web))
	@echo '==> dashboard'
	@npm run --silent --prefix $(web) build
	@mkdir -p $(@D) && touch $@
