# Two commands: `make lab` builds everything on this machine, `make test` proves it. Both may be stopped and repeated.
.PHONY: help bootstrap machine lab test lint unit molecule e2e proof bench clean
.DEFAULT_GOAL := help
.ONESHELL:
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/quote-platform
state := $(or $(XDG_STATE_HOME),$(HOME)/.local/state)/quote-platform
export PATH := $(CURDIR)/.venv/bin:$(cache)/uv-tool/bin:$(PATH)
export UV_CACHE_DIR := $(cache)/uv
export ANSIBLE_LOG_PATH := $(state)/logs/ansible.log

help: ## Say what there is
	@sed -nE 's/^([a-z0-9]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

bootstrap:
	@lab/bootstrap.sh

machine:
	@lab/bootstrap.sh --machine

lab: machine ## Build the lab: mirror, nodes, cluster, platform, application; then verify it
	@step() { printf '\n=== %s (%d min %02d s)\n' "$$1" $$((SECONDS / 60)) $$((SECONDS % 60)); }
	step "1/4 mirror: packages, images and manifests"
	quote-platform mirror fill
	step "2/4 lab: four nodes"
	quote-platform lab up
	step "3/4 cluster, platform, application"
	ansible-playbook -i inventories/lab site.yml
	step "4/4 verify"
	ansible-playbook -i inventories/lab playbooks/verify.yml
	step "ready"
	address=$$(quote-platform lab status --json --name lab \
	  | python -c 'import json, sys; d = json.load(sys.stdin); d = d[0] if isinstance(d, list) else d; print(next(n["address"] for n in d["nodes"] if n["role"] == "worker"))')
	echo "application:  curl --cacert $(state)/labs/lab/acme/roots.pem --resolve quotes.example.com:443:$$address https://quotes.example.com/"
	echo "cluster:      kubectl --kubeconfig $(CURDIR)/secrets/lab/kubeconfig get nodes"
	echo "a node:       quote-platform lab ssh worker-1      (PATH needs $(CURDIR)/.venv/bin)"
	echo "end it:       quote-platform lab down"

test: machine ## Run all tests: lint unit molecule e2e
	@python tests/run.py

lint unit: bootstrap ## Run one layer of tests
	@python tests/run.py $@

molecule e2e: machine
	@python tests/run.py $@

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
