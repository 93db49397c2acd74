# The commands of this project. `make` or `make help` lists them. The work is done by scripts/ and cargo.

.DEFAULT_GOAL := help
.PHONY: help demo up test golden setup deps nats clip fmt lint

# Where reference data lies beside the checkout, the tests and the demo find it. What the environment says wins.
ifneq ($(wildcard ../shared/golden),)
KADR_FIXTURES ?= ../shared
endif
ifneq ($(KADR_FIXTURES),)
override KADR_FIXTURES := $(abspath $(KADR_FIXTURES))
export KADR_FIXTURES
endif

# Folders of weights, in the order of search. Absolute: tests run in the folders of their crates.
ifeq ($(wildcard ../shared/models),)
KADR_MODELS ?= $(abspath models)
else
KADR_MODELS ?= $(abspath models):$(abspath ../shared/models)
endif
export KADR_MODELS

# A lane of inference computes on one thread. Unless told so, candle counts the machine's cores anew for every product.
export RAYON_NUM_THREADS ?= 1

# nats.sh puts a server into .kadr/bin only where none on PATH is new enough: so it comes first.
export PATH := $(CURDIR)/.kadr/bin:$(PATH)

CITY := .kadr/clips/bikes.mp4
CLIP ?= $(CITY)
OUT ?= out
KADR := $(or $(CARGO_TARGET_DIR),target)/debug/kadr

help: ## list the commands
	@echo 'usage: make COMMAND'
	@sed -n 's/^\([a-z]*\):.*## /  \1|/p' Makefile | awk -F'|' '{ printf "%-10s %s\n", $$1, $$2 }'

demo: deps nats $(if $(filter $(CITY),$(CLIP)),clip) ## set up what is missing and analyse a clip: make demo [CLIP=path] [OUT=dir]
	cargo build --locked -p kadr
	@$(KADR) models fetch yolov8n --if-missing
	@$(KADR) analyze "$(CLIP)" --out "$(OUT)"

up: deps nats ## start the whole system on 127.0.0.1 until Ctrl-C
	cargo build --locked -p kadr
	@$(KADR) models fetch yolov8n --if-missing
	@$(KADR) up

# What only tests need comes on top.
test: NEEDED := test
test: deps nats ## set up what the tests need; format, lints, then all tests
	@scripts/test.sh

golden: deps nats ## compare every frame of the reference clips (the tests take a sample of them)
	@test -n "$(KADR_FIXTURES)" || { echo 'kadr: set KADR_FIXTURES to the folder of reference data' >&2; exit 1; }
	KADR_GOLDEN_STRIDE=1 scripts/cargo-test.sh --test golden

setup: deps nats clip ## all that make demo sets up: NATS server, clip, weights
	cargo build --locked -p kadr
	@$(KADR) models fetch yolov8n --if-missing

deps: ## system packages: install them (root and apt-get) or say what to type
	@scripts/deps.sh $(NEEDED)

nats: deps ## a NATS server of 2.14 or newer: from PATH, or into .kadr/bin
	@scripts/nats.sh

clip: deps ## the clip of the demo, into .kadr/clips
	@scripts/clip.sh

fmt: ## format the code
	cargo fmt --all

lint: ## format check, clippy, scripts and container files; no tests
	@scripts/lint.sh
