# Every target is one line; the work is in scripts/. STACK=file chooses another stack than the default:
# stack.yaml if there is one, else the example for this box (GPU or not).
.DEFAULT_GOAL := help
.PHONY: help setup up down smoke status logs plan render diff images fetch key-add key-list key-revoke tls-reload drain undrain lint test test-unit test-faults provision test-hosts test-hosts-matrix bench-plan bench-gateway bench-balancing lock
SHELL := /bin/bash

HAS_GPU = $(shell timeout 10 nvidia-smi -L 2>/dev/null | grep -q ^GPU && echo yes)
STACK ?= $(if $(wildcard stack.yaml),stack.yaml,compose/examples/$(if $(HAS_GPU),gpu,cpu).yaml)
PYTHON := .venv/bin/python
RUN = scripts/setup.sh venv && $(PYTHON)

help: ## list every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile
setup: ## the Python environment and a Docker engine, where they are missing
	@scripts/setup.sh venv && scripts/setup.sh docker
up: setup ## bring the stack up and prove it with a real completion [STACK=file]
	@$(PYTHON) scripts/up.py "$(STACK)"
down: ## stop the stack; volumes, models and secrets are kept
	@$(RUN) scripts/down.py "$(STACK)"
smoke: ## prove that every part and every replica serves
	@$(RUN) scripts/smoke.py "$(STACK)"
status: ## what runs
	@$(RUN) scripts/status.py "$(STACK)"
logs: ## newest log lines [SERVICE=name FOLLOW=1]
	@$(RUN) scripts/logs.py "$(STACK)" $(SERVICE) $(if $(FOLLOW),--follow)
plan: ## what the stack file means: replicas, GPUs, flags, ports
	@$(RUN) scripts/plan.py "$(STACK)"
render: ## write build/<host>/; the running stack does not notice
	@$(RUN) scripts/render.py "$(STACK)"
diff: ## what `make up` would change, by file, and what it would restart
	@$(RUN) scripts/diff.py "$(STACK)"
images: ## pull or build the container images
	@$(RUN) scripts/images.py "$(STACK)"
fetch: ## bring the models onto this host; the running stack does not notice [TOKEN_FILE=]
	@$(RUN) scripts/fetch_model.py "$(STACK)" $(if $(TOKEN_FILE),--token-file "$(TOKEN_FILE)")
key-add: ## a key for a client, shown once [NAME= MODELS= RATE= CONCURRENCY=]
	@$(RUN) scripts/keys.py "$(STACK)" add "$(NAME)" $(if $(MODELS),--models "$(MODELS)") $(if $(RATE),--rate "$(RATE)") $(if $(CONCURRENCY),--concurrency "$(CONCURRENCY)")
key-list: ## clients and their keys, by id
	@$(RUN) scripts/keys.py "$(STACK)" list
key-revoke: ## take a key back [NAME= KEY=id]
	@$(RUN) scripts/keys.py "$(STACK)" revoke "$(NAME)" $(if $(KEY),--key "$(KEY)")
tls-reload: ## show clients a renewed certificate
	@$(RUN) scripts/tls_reload.py "$(STACK)"
drain: ## take a replica out of its pool and wait for its requests [REPLICA= TIMEOUT=]
	@$(RUN) scripts/drain.py "$(STACK)" "$(REPLICA)" $(if $(TIMEOUT),--timeout "$(TIMEOUT)")
undrain: ## put a drained replica back [REPLICA=]
	@$(RUN) scripts/drain.py "$(STACK)" "$(REPLICA)" --undo
lint: ## every linter, and every rendered file checked by the program that reads it
	@scripts/setup.sh dev && scripts/setup.sh docker && tests/lint.sh
test-unit: ## unit and case tests, in seconds
	@scripts/setup.sh dev && $(PYTHON) -m pytest
test: ## everything: lint, unit, cases, and the CPU stack for real
	@tests/run.sh
test-faults: ## the long fault matrix on the running CPU stack [FAULT_SECONDS=300]
	@scripts/setup.sh dev && scripts/setup.sh docker && $(PYTHON) -m pytest --verbose -s tests/faults
provision: ## bare servers become proven GPU hosts, docs/provisioning.md [INVENTORY= ARGS=--check]
	@scripts/setup.sh venv && ANSIBLE_CONFIG=ansible/ansible.cfg LC_ALL=C.UTF-8 .venv/bin/ansible-playbook -i "$(INVENTORY)" ansible/playbooks/provision.yml $(ARGS)
test-hosts: ## prove your own GPU hosts, reading only [INVENTORY= PROVISION_LOCK=]
	@scripts/setup.sh dev && ANSIBLE_CONFIG=ansible/ansible.cfg PATH="$(CURDIR)/.venv/bin:$$PATH" $(PYTHON) -m pytest --verbose tests/hosts --hosts=ansible://gpu_nodes --ansible-inventory="$(INVENTORY)"
test-hosts-matrix: ## the long matrix of the host roles, on test hosts in containers
	@scripts/setup.sh dev && scripts/setup.sh docker && $(PYTHON) -m pytest --verbose -s tests/provision
bench-plan: ## time and memory of plan and render, for 1 and for 200 hosts
	@scripts/setup.sh venv && PYTHONPATH=scripts $(PYTHON) tests/bench_plan.py
bench-gateway: ## latency and req/s of the gateway beside its peers, on a stub engine [ARGS=]
	@scripts/setup.sh docker && tests/bench/venv.sh && PYTHONPATH=scripts:tests $(PYTHON) tests/bench/gateway.py $(ARGS)
bench-balancing: ## prefix cache hits and TTFT by way of balancing, on real CPU engines [ARGS=]
	@scripts/setup.sh docker && tests/bench/venv.sh && PYTHONPATH=scripts:tests $(PYTHON) tests/bench/balancing.py $(ARGS)
lock: ## write the Python lock files anew
	@scripts/setup.sh dev && scripts/setup.sh lock
