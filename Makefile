# Two commands matter: `make up` runs the product, `make test` proves it. Both install what they need or name it.

CARGO ?= cargo
# What `make up` passes on, such as: make up ARGS="--listen 127.0.0.1:4000"
ARGS ?=
TARGET := $(or $(CARGO_TARGET_DIR),target)
AGENTS := $(TARGET)/agents

WEB_SOURCES := $(shell find web/src web/scripts -type f 2>/dev/null) web/index.html web/package.json web/package-lock.json web/vite.config.ts

# Where `make install` puts things; DESTDIR stands before all of it.
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc

.PHONY: up build web test test-vm test-vm-smoke lint fuzz bench agents install uninstall clean

up: build
	@$(TARGET)/release/agentapi up $(ARGS)

build: web
	@scripts/require build
	@echo "building the binaries (minutes the first time, seconds afterwards)"
	$(CARGO) build --release --locked -p agentapi -p agentapi-controlplane -p agentapi-supervisor -p agentapi-shim -p agentapi-egress

web: web/dist/index.html

web/node_modules/.package-lock.json: web/package-lock.json
	@scripts/require web
	@echo "installing the console's packages"
	cd web && npm ci --no-audit --no-fund

web/dist/index.html: web/node_modules/.package-lock.json $(WEB_SOURCES)
	@echo "building the console"
	cd web && npm run build

# Programs, systemd units and settings of a host; docs/operations.md goes on from there. It builds nothing: root needs no toolchain.
install:
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" scripts/install $(TARGET)/release

uninstall:
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" scripts/install --remove

# Everything that CI runs: the console's checks, the whole workspace, a VM, and the fuzz targets for a minute each.
test: web agents
	@scripts/require test
	cd web && npm run check && npm test
	cd tests/console && npm ci --no-audit --no-fund
	cd tests/database && npm ci --no-audit --no-fund && npm run --silent links
	cd tests/oidc && npm ci --no-audit --no-fund
	$(MAKE) lint
	$(CARGO) build --workspace --all-targets --locked
	$(CARGO) build --locked --manifest-path tests/database/independent/Cargo.toml --target-dir $(TARGET)/independent
	AGENTAPI_TEST_AGENTS=$(abspath $(AGENTS)) $(CARGO) test --workspace --locked --no-fail-fast
	@if scripts/require vm; then $(MAKE) test-vm-smoke; else \
	  echo "LEFT OUT: the tests in a VM (systemd, cgroup v2). They need what is named above, and root."; fi
	$(MAKE) fuzz FUZZ_SECONDS=60

# The services, and every attempt on the sandbox, on real Debian VMs with systemd and cgroup v2, under emulation: KERNELS="6.1 6.12" make test-vm
KERNELS ?= 6.1 6.12
# What of it: `service`, or parts of names of the sandbox's tests; everything if empty.
VM_TESTS ?=
test-vm: build
	@scripts/require vm
	$(CARGO) build --workspace --all-targets --locked
	@KERNELS="$(KERNELS)" VM_TESTS="$(VM_TESTS)" tests/vm/run $(TARGET)/release "$$(CARGO=$(CARGO) tests/vm/program sandbox)"

# The same with one kernel and the binaries that the other tests have just built.
test-vm-smoke:
	@KERNELS=6.1 tests/vm/run $(TARGET)/debug

lint:
	@scripts/lint

# Real agents at the versions that their manifests name, for the tests that run them.
agents: $(AGENTS)/.installed

$(AGENTS)/.installed: shared/agents/claude.toml
	@scripts/require web
	@scripts/install-agents $(AGENTS)
	@touch $@

FUZZ_SECONDS ?= 3600
fuzz:
	@scripts/fuzz $(FUZZ_SECONDS)

# Figures for docs/benchmarks.md; never part of the tests.
bench: web
	@scripts/require bench
	$(CARGO) build --profile dist --locked --workspace --bins --benches
	$(CARGO) bench --profile dist --locked -p agentapi-tests

clean:
	$(CARGO) clean
	rm -rf web/dist web/node_modules tests/console/node_modules tests/database/node_modules tests/oidc/node_modules
