# The tasks of a developer. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help setup build demo test soak check bench fuzz clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## install the Debian packages and make the users that the demo and the tests need
	@scripts/setup --user

build: ## build the release binary; target/strata points at it
	@scripts/build-release

demo: ## build two example images with base images made here (the first run takes some minutes)
	@scripts/setup
	@scripts/build-release
	@scripts/demo

test: setup ## run every test
	@scripts/test

soak: setup ## a thousand steps, hundreds of kills, full and failing disks, chance layers: nothing may be left, lost or grow (SOAK=STEPS,KILLS)
	STRATA_SOAK="$${SOAK:-1000,50}" cargo test --test e2e soak:: -- --nocapture --test-threads=1
	STRATA_SOAK=1,1 cargo test --test e2e -- --nocapture --test-threads=1 crash:: damage::
	PROPTEST_CASES="$${CASES:-500}" cargo test --lib layer::

check: ## what a change must pass before it is looked at: format and lints
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

bench: setup ## measure the parts, then whole builds against the other builders found here
	cargo bench
	@scripts/build-release
	@benches/compare.sh

fuzz: ## fuzz what reads recipes, ignore files, layers and records, each for FUZZ_SECONDS (60)
	@scripts/fuzz

clean: ## remove what cargo built, and the cached base images
	cargo clean
	scripts/registry stop
	rm -rf "$${STRATA_DEV_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/strata-dev}"
