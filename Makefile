# Every target is one line; the work is in scripts/. STACK=file chooses another stack than the default:
# stack.yaml if there is one, else the example for this box (GPU or not).
.DEFAULT_GOAL := help
.PHONY: $(shell sed -n "s/^\([a-z-]*\):.*\#\# .*/\1/p" Makefile)
SHELL := /bin/bash
# A shell that forbids byte code would have every command compile the program anew: half a second, and a third of the
# unit tests' time.
unexport PYTHONDONTWRITEBYTECODE

HAS_GPU = $(shell timeout 10 nvidia-smi -L 2>/dev/null | grep -q ^GPU && echo yes)
STACK ?= $(if $(wildcard stack.yaml),stack.yaml,compose/examples/$(if $(HAS_GPU),gpu,cpu).yaml)
# The one stack that may build its images by itself is the CPU example, and only where nobody chose it.
export STACK_BY_DEFAULT = $(if $(filter file,$(origin STACK)),yes)
PYTHON := .venv/bin/python
RUN = scripts/setup.sh venv && $(PYTHON)
# On hosts the stack file is the inventory's (stack_file) unless STACK= names another.
PLAY = scripts/setup.sh venv && ANSIBLE_CONFIG=ansible/ansible.cfg LC_ALL=C.UTF-8 .venv/bin/ansible-playbook -i "$(INVENTORY)" $(if $(LIMIT),--limit "$(LIMIT)") $(if $(filter command environment,$(origin STACK)),-e stack_file="$(abspath $(STACK))") $(ARGS)

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
status: ## what runs, here or on your hosts [INVENTORY= LIMIT=]
	@$(if $(INVENTORY),$(PLAY) ansible/playbooks/status.yml,$(RUN) scripts/status.py "$(STACK)")
logs: ## follow the log of every part, or of one [SERVICE=name FOLLOW=0]
	@$(RUN) scripts/logs.py "$(STACK)" $(SERVICE) $(if $(filter 0,$(FOLLOW)),,--follow)
plan: ## what the stack file means: replicas, GPUs, flags, ports
	@$(RUN) scripts/plan.py "$(STACK)"
place: ## where the engines of a fleet run, written beside its hosts file; what is there stays [HOSTS=hosts.yaml]
	@$(RUN) scripts/place.py "$(STACK)" --hosts "$(HOSTS)"
render: ## write build/<host>/; the running stack does not notice
	@$(RUN) scripts/render.py "$(STACK)"
diff: ## what `make up`, or `make deploy` there, would change by file and restart [INVENTORY= LIMIT=]
	@$(if $(INVENTORY),$(PLAY) ansible/playbooks/deploy.yml --check --diff,$(RUN) scripts/diff.py "$(STACK)")
images: ## make the container images present: pull, load or build them
	@$(RUN) scripts/images.py "$(STACK)"
images-save: ## the images in one file, for a host without a registry [ARCHIVE=images.tar]
	@$(RUN) scripts/images.py "$(STACK)" save $(if $(ARCHIVE),--archive "$(ARCHIVE)")
images-load: ## check that file and load it into Docker; `make up` does it too
	@$(RUN) scripts/images.py "$(STACK)" load
fetch: ## bring the models onto this host; the running stack does not notice [TOKEN_FILE=]
	@$(RUN) scripts/fetch_model.py "$(STACK)" $(if $(TOKEN_FILE),--token-file "$(TOKEN_FILE)")
key-add: ## a key for a client, shown once [NAME= MODELS= RATE= CONCURRENCY=]
	@$(RUN) scripts/keys.py "$(STACK)" add "$(NAME)" $(if $(MODELS),--models "$(MODELS)") $(if $(RATE),--rate "$(RATE)") $(if $(CONCURRENCY),--concurrency "$(CONCURRENCY)")
key-list: ## clients and their keys, by id
	@$(RUN) scripts/keys.py "$(STACK)" list
key-revoke: ## take a key back [NAME= KEY=id]
	@$(RUN) scripts/keys.py "$(STACK)" revoke "$(NAME)" $(if $(KEY),--key "$(KEY)")
secrets-rotate: ## new secrets for those that no client knows; no request fails
	@$(RUN) scripts/secrets_rotate.py "$(STACK)"
tls-reload: ## show clients a renewed certificate
	@$(RUN) scripts/tls_reload.py "$(STACK)"
drain: ## take a replica out of its pool and wait for its requests; INVENTORY=: on all gateways of a fleet [REPLICA= TIMEOUT=]
	@$(if $(INVENTORY),$(PLAY) ansible/playbooks/drain.yml -e drain_replica="$(REPLICA)" $(if $(TIMEOUT),-e drain_timeout="$(TIMEOUT)"),$(RUN) scripts/drain.py "$(STACK)" "$(REPLICA)" $(if $(TIMEOUT),--timeout "$(TIMEOUT)"))
undrain: ## put a drained replica back [REPLICA= INVENTORY=]
	@$(if $(INVENTORY),$(PLAY) ansible/playbooks/drain.yml -e drain_replica="$(REPLICA)" -e drain_undo=true,$(RUN) scripts/drain.py "$(STACK)" "$(REPLICA)" --undo)
doctor: ## what is missing or wrong on this box, before anything is tried; changes nothing
	@$(RUN) scripts/doctor.py "$(STACK)"
diagnose: ## one archive for a bug report or an incident, secrets taken out [OUT=folder LINES=1000]
	@$(RUN) scripts/diagnose.py "$(STACK)" $(if $(OUT),--out "$(OUT)") $(if $(LINES),--lines $(LINES))
gc: ## free what nothing needs: images, models, caches, evidence [DRY_RUN=1 DAYS=7 ONLY=image]
	@$(RUN) scripts/collect_garbage.py "$(STACK)" $(if $(DRY_RUN),--dry-run) $(if $(DAYS),--days $(DAYS)) $(if $(ONLY),--only $(ONLY))
backup: ## secrets, certificates, decisions and metrics into one archive of mode 0600 [OUT=folder]
	@$(RUN) scripts/backup.py "$(STACK)" $(if $(OUT),--out "$(OUT)")
restore: ## put a backup back, checked whole first; asks before it replaces [BACKUP=file YES=1]
	@$(RUN) scripts/restore.py "$(STACK)" "$(BACKUP)" $(if $(YES),--yes)
clean: ## remove everything of this stack; asks first [YES=1]
	@$(RUN) scripts/clean.py "$(STACK)" $(if $(YES),--yes)
upgrade-check: ## would another vLLM serve this stack? flags, defaults, metrics [VLLM=x.y.z]
	@$(RUN) scripts/upgrade_check.py "$(STACK)" "$(VLLM)"
cordon: ## take a GPU out of use, kept over `make up`; the other GPUs serve on [GPU=uuid TIMEOUT=]
	@$(RUN) scripts/cordon.py "$(STACK)" "$(GPU)" $(if $(TIMEOUT),--timeout "$(TIMEOUT)")
uncordon: ## use a cordoned GPU again [GPU=uuid]
	@$(RUN) scripts/cordon.py "$(STACK)" "$(GPU)" --undo
report: ## what Prometheus knows, as one HTML file without Grafana [SINCE=1h UNTIL= OUT=report.html]
	@$(RUN) scripts/report.py "$(STACK)" $(if $(SINCE),--since "$(SINCE)") $(if $(UNTIL),--until "$(UNTIL)") $(if $(OUT),--output "$(OUT)")
slo: ## what is left of the error budgets, and how fast they burn
	@$(RUN) scripts/slo.py "$(STACK)"
alert-test: ## send a test alert through Prometheus' own way to every receiver
	@$(RUN) scripts/alert_test.py "$(STACK)"
lint: ## every linter, and every rendered file checked by the program that reads it
	@scripts/setup.sh dev && scripts/setup.sh docker && tests/lint.sh
test-unit: ## unit and case tests, in seconds
	@scripts/setup.sh dev && tests/unit.sh
test: ## everything: lint, unit, cases, and the CPU stack for real
	@tests/run.sh
test-faults: ## the long fault matrix on the running CPU stack [FAULT_SECONDS=300]
	@scripts/setup.sh dev && scripts/setup.sh docker && $(PYTHON) -m pytest --verbose -s tests/faults
test-gpu: ## what needs an NVIDIA GPU: start, smoke, plan against log; skipped, with the reason, where there is none
	@scripts/setup.sh dev && scripts/setup.sh docker && $(PYTHON) -m pytest --verbose -s -rs tests/gpu
deploy: ## the stack file onto your hosts, replica by replica: docs/deploy.md [INVENTORY= LIMIT= STACK= ARGS=]
	@$(PLAY) ansible/playbooks/deploy.yml
rollback: ## your hosts back to the release before, or to one of `make releases` [INVENTORY= LIMIT= TO=id ARGS=]
	@$(PLAY) ansible/playbooks/rollback.yml $(if $(TO),-e rollback_to="$(TO)")
releases: ## the releases that your hosts keep: when, who, from which commit [INVENTORY= LIMIT= JSON=file]
	@$(PLAY) ansible/playbooks/releases.yml $(if $(JSON),-e releases_file="$(abspath $(JSON))")
history: ## what changed between two of them; default: the one before and the running one [INVENTORY= FROM= TO= JSON=file]
	@$(PLAY) ansible/playbooks/releases.yml -e releases_question=history $(if $(FROM),-e history_from="$(FROM)") $(if $(TO),-e history_to="$(TO)") $(if $(JSON),-e releases_file="$(abspath $(JSON))")
pull-mode: ## hosts deploy to themselves what a signed repository says, docs/gitops.md [INVENTORY= LIMIT=]
	@$(PLAY) ansible/playbooks/pull_deploy.yml
provision: ## bare servers become proven GPU hosts, docs/provisioning.md [INVENTORY= ARGS=--check]
	@$(PLAY) ansible/playbooks/provision.yml
test-hosts: ## prove your own GPU hosts, reading only; GROUP=gateway: hosts without a GPU [INVENTORY= PROVISION_LOCK= GROUP=]
	@scripts/setup.sh dev && ANSIBLE_CONFIG=ansible/ansible.cfg PATH="$(CURDIR)/.venv/bin:$$PATH" $(PYTHON) -m pytest --verbose $(if $(GROUP),tests/hosts/test_stack.py tests/hosts/test_fleet_host.py,tests/hosts) --hosts=ansible://$(or $(GROUP),gpu_nodes) --ansible-inventory="$(INVENTORY)"
test-hosts-matrix: ## the long matrix of the host roles and of deploys, on test hosts in containers
	@scripts/setup.sh dev && scripts/setup.sh docker && $(PYTHON) -m pytest --verbose -s tests/provision tests/deploy
test-fleet: ## the long matrix of a fleet: deploys under load, on test hosts in containers
	@scripts/setup.sh dev && scripts/setup.sh docker && $(PYTHON) -m pytest --verbose -s tests/fleet
bench-plan: ## time and memory of plan and render, for 1 host, for 200, and for a fleet of them
	@scripts/setup.sh venv && PYTHONPATH=scripts $(PYTHON) tests/bench_plan.py
bench-gateway: ## latency and req/s of the gateway beside its peers, on a stub engine [ARGS=]
	@scripts/setup.sh docker && tests/bench/venv.sh && PYTHONPATH=scripts:tests $(PYTHON) tests/bench/gateway.py $(ARGS)
bench-balancing: ## prefix cache hits and TTFT by way of balancing, on real CPU engines [ARGS=]
	@scripts/setup.sh docker && tests/bench/venv.sh && PYTHONPATH=scripts:tests $(PYTHON) tests/bench/balancing.py $(ARGS)
bench-start: ## first start against second: time to the first completion, on a real CPU engine [ARGS=]
	@scripts/setup.sh venv && scripts/setup.sh docker && PYTHONPATH=scripts:tests $(PYTHON) tests/bench/start.py $(ARGS)
lock: ## write the images' digests, as the registry has them now, into compose/images.lock
	@$(RUN) scripts/lock_images.py "$(STACK)"
lock-python: ## write the Python lock files anew
	@scripts/setup.sh dev && scripts/setup.sh lock
