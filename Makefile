# The commands of this project. `make` or `make help` lists them. The work is done by scripts/ and cargo.

.DEFAULT_GOAL := help
BENCH ?=
PROFILE ?=
.PHONY: help demo up test golden chaos chaos-short sanitize fuzz bench-core bench-inference bench-live bench-pipeline setup deps nats clip fmt lint

# Where reference data lies beside the checkout, the tests and the demo find it. What the environment says wins.
ifneq ($(wildcard ../shared/golden),)
KADR_FIXTURES ?= ../shared
endif
ifneq ($(KADR_FIXTURES),)
override KADR_FIXTURES := $(abspath $(KADR_FIXTURES))
export KADR_FIXTURES
endif

# The peers' environment, once scripts/peers.sh has made it: a test compares with ONNX Runtime itself.
ifneq ($(wildcard .kadr/peers/pinned),)
KADR_PEERS ?= $(abspath .kadr/peers)
export KADR_PEERS
endif

# An ONVIF device of somebody else's, once scripts/onvif-device.sh has built it.
ifneq ($(wildcard .kadr/onvif-device),)
KADR_ONVIF_DEVICE ?= $(abspath .kadr/onvif-device)
export KADR_ONVIF_DEVICE
endif

# Folders of weights, in the order of search. Absolute: tests run in the folders of their crates.
ifeq ($(wildcard ../shared/models),)
KADR_MODELS ?= $(abspath models)
else
KADR_MODELS ?= $(abspath models):$(abspath ../shared/models)
endif
export KADR_MODELS

# nats.sh puts a server into .kadr/bin only where none on PATH is new enough: so it comes first.
export PATH := $(CURDIR)/.kadr/bin:$(PATH)

CITY := .kadr/clips/bikes.mp4
CLIP ?= $(CITY)
OUT ?= out
DEBUG := $(or $(CARGO_TARGET_DIR),target)/debug
KADR := $(DEBUG)/kadr

# What make chaos does; without a seed it makes one up and tells it.
SEED ?=
KILLS ?= 30
NODES ?= 3
MINUTES ?= 0
CHAOS := $(DEBUG)/examples/chaos --kadr $(KADR) --out $(or $(CARGO_TARGET_DIR),target)/chaos

help: ## list the commands
	@echo 'usage: make COMMAND'
	@sed -n 's/^\([a-z-]*\):.*## /  \1|/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

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

chaos: deps nats ## break a running system at random and check that it keeps its word: [SEED=n] [KILLS=n] [NODES=1|3] [MINUTES=n]
	cargo build --locked -p kadr --bins --example chaos
	@$(CHAOS) $(if $(SEED),--seed $(SEED)) --kills $(KILLS) --nodes $(NODES) --minutes $(MINUTES)

chaos-short: deps nats ## the same for about five minutes, with seeds that stay the same: what CI runs
	cargo build --locked -p kadr --bins --example chaos
	@$(CHAOS) --seed 1 --kills 18 --nodes 3 --tell-times
	@$(CHAOS) --seed 2 --kills 5 --nodes 1 --states 60 --tell-times

sanitize: ## test the code that the compiler can't check with AddressSanitizer and valgrind (a build of its own)
	@scripts/sanitize.sh

bench-core: deps nats ## measure the event core, as lines of JSON (a release build: it takes long): [BENCH=name]
	cargo bench --locked -p kadr --bench core -- $(BENCH)

bench-inference: deps ## measure the network beside its peers, as lines of JSON, or by layer: [BENCH="words"] [PROFILE=1]
	@$(if $(PROFILE),,scripts/peers.sh || true)
	@cargo bench --locked -p kadr-inference --bench inference -- $(BENCH) $(if $(PROFILE),--profile)

bench-pipeline: deps nats $(if $(KADR_FIXTURES),,clip) ## measure the whole way of a clip beside its peers, as lines of JSON: [CLIP=path]
	@scripts/peers.sh || true
	@cargo bench --locked -p kadr --bench pipeline -- $(if $(filter file,$(origin CLIP)),,"$(CLIP)")

bench-live: deps nats ## measure cameras and live video, as lines of JSON: [BENCH="glass first idle cameras"] or BENCH=soak [MINUTES=n]
	@test -n "$(KADR_FIXTURES)" || { echo 'kadr: set KADR_FIXTURES to the folder of reference data' >&2; exit 1; }
	@cargo bench --locked -p kadr --bench live -- $(BENCH)

fuzz: ## fuzz what reads untrusted bytes, each target for SECONDS=60 (cargo-fuzz, an instrumented build of its own)
	@scripts/fuzz.sh $(SECONDS)

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
