# What one types here. Each target installs what it misses, as scripts/install-needs says.

CARGO ?= cargo
TOOLS := $(CURDIR)/target/tools/debian/usr/bin

.PHONY: help run test bench lint needs needs-test needs-bench

help:
	@echo 'make run    build procmand and run it on the demonstration, config/demo.toml; Ctrl-C ends it'
	@echo 'make test   all tests'
	@echo 'make bench  speed and memory, as ratios against bare system calls and libzmq (a few minutes; best on a quiet machine)'
	@echo 'make lint   format, clippy, documentation; every warning is an error'
	@echo
	@echo 'With apt they install what they miss: libzmq for run, Python with pyzmq, and services such as PostgreSQL and Prometheus (unpacked below target/) for test.'

run: needs
	$(CARGO) build --release --bins
	@scripts/run-demo

# The closing lines of each test program stay to be seen, also those behind a failed one.
test: needs-test
	PATH="$(TOOLS):$$PATH" $(CARGO) test --no-fail-fast </dev/null

bench: needs-bench
	$(CARGO) bench --bench floors

lint: needs
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps

needs:
	@scripts/install-needs build

needs-test:
	@scripts/install-needs build test

needs-bench:
	@scripts/install-needs build bench
