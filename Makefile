# Darkroom. `make` alone lists the targets. Every target does its own set-up; a second call starts at once.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A folder with a CPU build of torch, if there is one; pip prefers it to the package index's.
WHEELS ?= $(wildcard ../shared/wheels)
UV_VERSION := 0.13.9
READY := $(VENV)/.ready
# Packages that are type-checked, each as the code imports it.
PACKAGES := chassis artifacts jobs captioner trainer dreambooth converter webui_gateway webui_engine darkroom_cli
PYTEST := $(BIN)/python -m pytest
# One thread of torch for each process: spinning threads on shared cores are several times slower.
export OMP_WAIT_POLICY ?= PASSIVE
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help setup demo run images image-base test test-long e2e cluster cluster-down torture check format bench bench-tiny lock proto-baseline clean

##@ Use

demo: $(READY)  ## photos -> captions -> crops -> training -> conversion -> pictures; writes out/contact-sheet.png
	@$(BIN)/darkroom demo

run: $(READY)  ## start the store and all services on this machine; Ctrl-C stops them
	@$(BIN)/darkroom up

##@ Ship

images: $(READY)  ## build the container images with docker, podman or buildah: IMAGES, TORCH=cuda, BASE, REGISTRY, TAG; see docs/images.md
	@$(BIN)/python -m images.build $(IMAGES) $(if $(TORCH),--torch $(TORCH)) $(if $(BASE),--base $(BASE)) \
	  $(if $(REGISTRY),--registry $(REGISTRY)) $(if $(TAG),--tag $(TAG)) $(if $(ENGINE),--engine $(ENGINE)) \
	  $(addprefix --wheels ,$(WHEELS)) $(if $(ARCHIVES),--archives $(ARCHIVES))

image-base: $(READY)  ## make a base image from Debian's packages, where there is no registry (root, debootstrap, buildah)
	@$(BIN)/python -m images.base

##@ Develop

setup: $(READY)  ## create the virtual environment and install everything (done by the other targets too)

# Four workers on two cores: two compute while others wait for their servers and programs.
test: $(READY)  ## every test that needs no cluster and no network, but the long ones
	@OMP_NUM_THREADS=1 $(PYTEST) -n 4 --no-loadscope-reorder -m "not long" tests

test-long: $(READY)  ## the long ones: killed programs, several processes, a store that goes away, thousands of images
	@OMP_NUM_THREADS=1 $(PYTEST) -n 3 --no-loadscope-reorder -m long tests

e2e: $(READY)  ## every test that needs a real Kubernetes: builds and starts one on this machine (Linux, root, Go)
	@$(BIN)/python -m tests.cluster.harness build
	@DARKROOM_E2E=1 OMP_NUM_THREADS=1 WHEELS="$(firstword $(WHEELS))" $(PYTEST) -n 2 --durations=25 --durations-min=10 tests/cluster

cluster: $(READY)  ## start the real Kubernetes of the tests and leave it up; prints the kubeconfig
	@$(BIN)/python -m tests.cluster.harness up

cluster-down: $(READY)  ## remove that Kubernetes, also after a crash
	@$(BIN)/python -m tests.cluster.harness down

check: $(READY)  ## format, lint, types, import contracts, protos, README, chart
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(addprefix -p ,$(PACKAGES))
	$(BIN)/lint-imports
	cd protos && ../$(BIN)/buf lint
	cd protos && ../$(BIN)/buf format --diff --exit-code --exclude-path buf
	cd protos && ../$(BIN)/buf breaking --against baseline.binpb --exclude-path buf
	$(BIN)/mypy -p tests.cluster.harness
	$(PYTEST) -q tests/repository tests/helm/test_lint.py tests/helm/test_schema.py tests/helm/test_readme.py

torture: $(READY)  ## kill trainings at 40 random moments and compare every bit of what they become; about 10 minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.dreambooth.torture

format: $(READY)  ## rewrite code and protos in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cd protos && ../$(BIN)/buf format -w --exclude-path buf

bench: $(READY)  ## speed of training as ratios, one JSON line each; also on a GPU if there is one
	@$(BIN)/python -m bench.train
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	  then $(BIN)/python -m bench.train_gpu; \
	  else echo "train_gpu: left out, torch sees no CUDA GPU" >&2; fi

bench-tiny: $(READY)  ## scores of the tiny models on unseen scenes, as one JSON line
	@$(BIN)/python -m bench.tiny

##@ Maintain

lock: $(BIN)/uv  ## resolve uv.lock anew
	$(BIN)/uv lock

proto-baseline: $(READY)  ## accept the protos as released: later changes must stay compatible with them
	cd protos && ../$(BIN)/buf build --exclude-source-info -o baseline.binpb

clean:  ## remove the environment and everything that was built or written
	rm -rf $(VENV) out data .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

help:
	@awk 'BEGIN {FS = ":.*##"} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*##/ {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Darkroom needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# torch is not in the lock: the index's build brings gigabytes of CUDA libraries that a CPU machine does not need.
$(READY): $(BIN)/uv uv.lock requirements-torch.txt pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml cli/pyproject.toml) $(shell find protos -name '*.proto' -o -name 'generate.py' -o -name 'pyproject.toml')
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix --find-links ,$(WHEELS)) --requirement requirements-torch.txt
	VIRTUAL_ENV=$(abspath $(VENV)) UV_COMPILE_BYTECODE_TIMEOUT=1200 $(BIN)/uv sync --active --frozen --inexact --all-packages --all-extras --compile-bytecode --quiet
	@touch $@
