# What one types here. Each target installs what it misses, as scripts/install-needs says.

CARGO ?= cargo
TOOLS := $(CURDIR)/target/tools/debian/usr/bin

.PHONY: help run test test-python torture bench bench-cgse fuzz sbom deny lint needs needs-test needs-bench

help:
	@echo 'make run    build procmand and run it on the demonstration, config/demo.toml; Ctrl-C ends it'
	@echo 'make test   all tests, those of the Python package too'
	@echo 'make torture  the daemon stands still, PIDs are used again, clocks are set, clients vanish; then it is killed more than 1,000 times, at random and at named moments, with 100 sub-processes; ends with a table (ten minutes)'
	@echo 'make test-python  the Python package, on the oldest and the newest Python that is found'
	@echo 'make bench  speed and memory, as ratios against bare system calls, libzmq and other supervisors (ten minutes; best on a quiet machine)'
	@echo 'make bench-cgse  the Python client beside egse.process, and the core of CGSE up and down beside a script (five minutes)'
	@echo 'make fuzz   each fuzz target for ten minutes (needs a nightly compiler and cargo-fuzz)'
	@echo 'make sbom   what is linked, as procman.cdx.json; make deny  its advisories, licences and sources'
	@echo 'make lint   format, clippy, documentation; every warning is an error'
	@echo
	@echo 'With apt they install what they miss: libzmq for run, Python with pyzmq for test, and services such as PostgreSQL and CGSE (below target/);'
	@echo 'supervisor and circus from PyPI (below target/) for bench.'

run: needs
	$(CARGO) build --release --bins
	@scripts/run-demo

# The closing lines of each test program stay to be seen, also those behind a failed one. The daemon's tests run a second time without control
# groups: on a host that has none the daemon must keep the same promises. (What is between the daemon and CGSE is not about them.)
# The previous commit's daemon is upgraded to the present one. The Python package, wheel and sdist included, is tested against this daemon.
test: needs-test
	@scripts/previous-binary
	@PATH="$(TOOLS):$$PATH"; export PATH; failed=0; \
	echo '$(CARGO) test --no-fail-fast'; $(CARGO) test --no-fail-fast </dev/null || failed=1; \
	echo 'PROCMAN_TEST_CGROUP=off $(CARGO) test --test it -- --skip cgse_'; PROCMAN_TEST_CGROUP=off $(CARGO) test --test it -- --skip cgse_ </dev/null || failed=1; \
	scripts/test-python --with-cgse || failed=1; \
	exit $$failed

# Without optimisation: only such a build has the named moments. `make test` has the short forms.
torture: needs-test
	PATH="$(TOOLS):$$PATH" PROCMAN_TEST_AT_LENGTH=1 $(CARGO) test --test it torment::
	$(CARGO) test --test torture -- --kills 1000

# A part of the tests, for whoever changes python/ alone.
test-python: needs-test
	$(CARGO) build --bins
	scripts/test-python --with-cgse

bench: needs-bench
	$(CARGO) bench --bench floors

# The Python of CGSE measures, as the test's install brings it.
bench-cgse: needs-test
	$(CARGO) build --release --bins
	PYTHONPATH=python/src target/tools/cgse/bin/python -c 'import msgpack' 2>/dev/null || target/tools/cgse/bin/python -m pip install --quiet msgpack
	PYTHONPATH=python/src target/tools/cgse/bin/python python/bench/round_trip.py
	target/tools/cgse/bin/python python/bench/core.py

# Needs a nightly compiler and cargo-fuzz. What is found, and the corpus, are below fuzz/.
FUZZ_SECONDS ?= 600
fuzz: needs
	@failed=0; for target in $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs))); do \
	mkdir -p fuzz/corpus/$$target; \
	$(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 || failed=1; \
	echo "$$target: $$(ls fuzz/corpus/$$target | wc -l) inputs in the corpus"; done; exit $$failed

# What is linked, as an SBOM in CycloneDX's JSON; with cargo-cyclonedx.
sbom:
	$(CARGO) cyclonedx --version >/dev/null 2>&1 || $(CARGO) install --locked --quiet cargo-cyclonedx
	$(CARGO) cyclonedx --format json --override-filename procman.cdx
	@echo 'it is in procman.cdx.json'

# Advisories, licences, duplicates and sources of what is linked, as deny.toml says; with cargo-deny.
deny:
	$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked --quiet cargo-deny
	$(CARGO) deny check

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
