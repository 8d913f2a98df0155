# Two commands: `make lab` builds everything on this machine, `make test` proves it. Both may be stopped and repeated.
.PHONY: help bootstrap machine lab test lint unit molecule e2e proof bench clean
.DEFAULT_GOAL := help
.ONESHELL:
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/quote-platform
state := $(or $(XDG_STATE_HOME),$(HOME)/.local/state)/quote-platform
export PATH := $(CURDIR)/.venv/bin:$(cache)/uv-tool/bin:$(PATH)
# Ansible starts with UTF-8 only, and a login may have brought a locale that is not installed here.
export LC_ALL := C.UTF-8
export UV_CACHE_DIR := $(cache)/uv
export ANSIBLE_LOG_PATH := $(state)/logs/ansible.log
export MYPY_CACHE_DIR := $(cache)/mypy

# A list such as core,monitoring: only these components, and always the core; without it, all.
comma := ,
chosen := $(if $(components),core $(filter-out core,$(subst $(comma), ,$(components))))

# driver=qemu: what labs of virtual machines need is installed as well.
options := $(if $(filter qemu,$(driver)),--qemu)

help: ## Say what there is
	@sed -nE 's/^([a-z0-9]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

bootstrap:
	@lab/bootstrap.sh $(options)

machine:
	@lab/bootstrap.sh --machine $(options)

lab: machine ## Build the whole platform in a lab and verify it; components=core: cluster, ingress, database, application
	@started=$$EPOCHSECONDS
	step() { printf '\n=== %s (%d min %02d s)\n' "$$1" $$((SECONDS / 60)) $$((SECONDS % 60)); }
	step "1/4 mirror: packages, images and manifests"
	quote-platform mirror fill $(chosen:%=--part %)
	step "2/4 lab: its machines"
	quote-platform lab up $(chosen:%=--components %)
	step "3/4 cluster, platform, application"
	quote-platform lab await --since $$started &
	trap 'kill '$$!' 2>/dev/null || true' EXIT
	ansible-playbook -i inventories/lab site.yml
	step "4/4 verify"
	ansible-playbook -i inventories/lab playbooks/verify.yml
	quote-platform mirror settle
	step "ready"
	quote-platform lab summary
	echo "(PATH needs $(CURDIR)/.venv/bin)"

test: machine ## Run all tests: lint unit molecule e2e
	@python tests/run.py

lint unit: bootstrap ## Run one layer of tests
	@python tests/run.py $@

molecule e2e: machine
	@python tests/run.py $@

proof: options := --qemu
proof: machine ## Prove every claim of the README, for a release: all tests, none left out; writes docs/proof.json
	@git diff --quiet HEAD || { echo "make proof: commit your changes first: what is proven is a commit" >&2; exit 1; }
	status=0
	python tests/run.py --proof || status=$$?
	quote-platform proof record --gate || status=$$?
	exit $$status

bench: machine ## Measure; writes docs/benchmarks.md
	@bench/run

clean: ## Remove the lab, its images and the virtual environment; the mirror's cache stays
	@if [[ -x .venv/bin/quote-platform ]]; then quote-platform lab down; fi
	if command -v podman >/dev/null; then
	  podman images --format '{{.Repository}}:{{.Tag}}' | { grep '^localhost/quote-platform-' || true; } | xargs -r podman rmi || true # one that another lab uses stays
	fi
	rm -rf .venv reports report.json $(cache)/lab
