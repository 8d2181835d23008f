# `make pretrain` shows the way to a model on this machine, `make finetune` what is done with it, `make test` runs the tests.
VENV ?= .venv
WORK ?= runs/quickstart
RANKS ?= 2
STEPS ?= 300
OVERRIDES ?=
PYTHON ?= python3

HPCTRAIN = $(VENV)/bin/hpctrain
TRAIN = $(HPCTRAIN) train configs/pretrain/quickstart.yaml --ranks $(RANKS) \
	run.dir=$(WORK)/run data.shards=$(WORK)/shards train.steps=$(STEPS) $(OVERRIDES)

TASKS ?= openmp mpi serial-to-parallel translate race instruct
FINETUNE ?=
EVALUATE ?=

.PHONY: help install pretrain finetune test lint

help:
	@echo "make pretrain   environment, corpus, tokenizer, shards, training, restart, evaluation, export, report"
	@echo "make finetune   each task from that model: its data, training, its score beside the yardsticks"
	@echo "make test       the whole test suite"
	@echo "make lint       ruff, mypy and the import rule"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt launch/install.sh
	@PYTHON=$(PYTHON) launch/install.sh $(VENV)

# Each stage is skipped by its own command when it is finished, and goes on when it was interrupted.
pretrain: install
	@$(HPCTRAIN) corpus build configs/corpus/installed.yaml --out $(WORK)/corpus
	@$(HPCTRAIN) tokenizer train configs/tokenizer/default.yaml --corpus $(WORK)/corpus --out $(WORK)/tokenizer
	@$(HPCTRAIN) shards build --corpus $(WORK)/corpus --tokenizer $(WORK)/tokenizer --out $(WORK)/shards
	@examples/stop-and-restart.sh $(WORK)/run $$(($(STEPS) / 2)) $(TRAIN)
	@[ $(WORK)/evaluation/bits-per-byte.json -nt $(WORK)/run/metrics.jsonl ] || \
		$(HPCTRAIN) evaluate $(WORK)/run --suite bits-per-byte --out $(WORK)/evaluation
	@$(HPCTRAIN) export $(WORK)/run --format hf --out $(WORK)/export
	@$(HPCTRAIN) report $(WORK)/run --html $(WORK)/run/report.html

finetune: install
	@for task in $(TASKS); do dir=$(WORK)/finetune/$$task; corpus=; \
		case $$task in openmp|mpi) corpus=task.corpus=$(WORK)/corpus ;; esac; \
		$(HPCTRAIN) finetune configs/finetune/$$task.yaml --ranks $(RANKS) run.start_from=$(WORK)/run \
			run.dir=$$dir/run data.shards=$$dir/shards task.data=$$dir/data $$corpus $(FINETUNE) && \
		$(HPCTRAIN) evaluate $$dir/run --suite $$task --html $$dir/scores.html $(EVALUATE) || exit; \
	done

test: install
	@$(VENV)/bin/python -m pytest

lint: install
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports
