"""The three rendered Compose files, read as data: hardening, networks, ports, variables."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from stack.effects import service_hashes
from stack.gateway_state import GatewayState
from stack.plan.types import Plan
from stack.render import render
from stack.secrets import grafana
from stack.yaml_input import parsed
from stacks import ROOT
from unit import given

COMPOSE_FILES = (
    "compose.yaml",
    "compose/edge.yaml",
    "compose/observability.yaml",
    "compose/grafana.yaml",
    "compose/gpu-exporters.yaml",
)
LOG_SHIPPING = "compose/log-shipping.yaml"
REFERENCE = re.compile(r"\$\{([A-Z_]+):\?\}")


def plan(**keys: Any) -> Plan:
    return given.plan(given.config(given.toy(replicas=2, **keys), device="cuda"))


def tree_of(made: Plan) -> dict[str, bytes]:
    return render(made, GatewayState({"0" * 64: "default"}), ROOT)


def services(made: Plan) -> dict[str, dict[str, Any]]:
    """Every service of the files, merge keys resolved."""
    tree = tree_of(made)
    found: dict[str, dict[str, Any]] = {}
    for name in (*COMPOSE_FILES, LOG_SHIPPING):
        for service, settings in parsed(tree[name])["services"].items():
            assert service not in found
            found[service] = settings
    return found


def variables(made: Plan) -> dict[str, str]:
    """The rendered .env, as a shell would read it."""
    lines = tree_of(made)[".env"].decode().splitlines()
    return dict(shlex.split(line)[0].split("=", 1) for line in lines if line and not line.startswith("#"))


# no part of a stack that does not ask for it
SHIPPER = services(plan())["fluent-bit"]
SERVICES = {name: service for name, service in services(plan()).items() if name != "fluent-bit"}
ENGINES = [engine.name for engine in plan().engines]


def test_the_stack_is_the_engines_and_ten_parts() -> None:
    assert set(SERVICES) == {
        *ENGINES,
        "nginx",
        "haproxy",
        "haproxy-standby",
        "prometheus",
        "alertmanager",
        "node-exporter",
        "blackbox-exporter",
        "grafana",
        "dcgm-exporter",
        "cadvisor",
    }


@pytest.mark.parametrize("name", [*SERVICES, "fluent-bit"])
def test_every_service_is_hardened_restarts_and_rotates_its_log(name: str) -> None:
    service = SHIPPER if name == "fluent-bit" else SERVICES[name]
    assert service["init"] is True
    assert service["restart"] == "unless-stopped"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert "no-new-privileges:true" in service["security_opt"]
    # Docker's log files are root's alone
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]) or name == "fluent-bit"
    assert service["pids_limit"] > 0
    assert service["cpu_shares"] not in (0, 1024), "said, and not Docker's default"
    assert "mem_limit" in service or name in ENGINES, "an engine's is planned"
    assert service["logging"]["driver"] == "json-file"
    assert service["logging"]["options"]["labels"] == "com.docker.compose.project,com.docker.compose.service"
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_sees_dockers_socket_or_shares_the_hosts_namespaces(name: str) -> None:
    service = SERVICES[name]
    assert not [volume for volume in service.get("volumes", []) if "docker.sock" in volume]
    assert not {"network_mode", "pid", "ipc", "userns_mode"} & service.keys()


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_on_the_engines_network_only_and_publishes_nothing(name: str) -> None:
    assert SERVICES[name]["networks"] == ["engines"]
    assert "ports" not in SERVICES[name]


def test_networks_without_a_route_out_are_all_but_the_edge() -> None:
    networks = parsed(tree_of(plan())["compose.yaml"])["networks"]
    assert {name for name, settings in networks.items() if not settings.get("internal")} == {"edge"}
    assert {network for service in SERVICES.values() for network in service["networks"]} == set(networks)


def test_only_four_parts_publish_and_only_nginx_beyond_loopback() -> None:
    values = variables(plan())
    published = {name: REFERENCE.sub(lambda match: values[match[1]], port)
                 for name, service in SERVICES.items() for port in service.get("ports", [])}  # fmt: skip
    assert published == {
        "nginx": "0.0.0.0:8443:8443",
        "prometheus": "127.0.0.1:9090:9090",
        "alertmanager": "127.0.0.1:9093:9093",
        "grafana": "127.0.0.1:3000:3000",
    }


def test_only_who_publishes_is_on_the_edge_and_only_the_balancers_and_prometheus_reach_the_engines() -> None:
    members = {network: {name for name, service in SERVICES.items() if network in service["networks"]}
               for network in ("edge", "engines")}  # fmt: skip
    assert members["edge"] == {name for name, service in SERVICES.items() if service.get("ports")}
    assert members["engines"] == {*ENGINES, "haproxy", "haproxy-standby", "prometheus", "blackbox-exporter"}


def test_every_variable_of_the_compose_files_is_set() -> None:
    tree, values = tree_of(plan()), variables(plan())
    used = {name for file in COMPOSE_FILES for name in REFERENCE.findall(tree[file].decode())}
    assert used <= {name for name, value in values.items() if value}
    # a variable without `:?` would be empty in silence when it is not set
    for file in COMPOSE_FILES[1:]:
        assert "$" not in REFERENCE.sub("", tree[file].decode()).replace("$$", "")


def test_each_part_runs_the_planned_image() -> None:
    made, values = plan(), variables(plan())
    for name, service in SERVICES.items():
        role = "vllm" if name in ENGINES else name.removesuffix("-standby").replace("-", "_")
        assert REFERENCE.sub(lambda match: values[match[1]], service["image"]) == made.images[role]


def test_compose_reads_exactly_these_files_under_the_stacks_name() -> None:
    made = given.plan(given.config(name="another"))
    values = variables(made)
    assert values["COMPOSE_PROJECT_NAME"] == "another"
    assert values["COMPOSE_FILE"].split(":") == list(COMPOSE_FILES[:4])  # on a CPU there is nothing to export
    assert variables(plan())["COMPOSE_FILE"].split(":") == list(COMPOSE_FILES)
    assert values["STATE_DIR"] == made.state_dir


@pytest.mark.parametrize(
    "word",
    [
        "$HOME",
        "${HOME}",
        "$$",
        "a$b$c",
        '{"a": "$ref"}',
        "a: b # c",
        "'",
        '"',
        "\\",
        "- x",
        "é",
        "\U0001f600",
        "a\nb",
        "{{ x }}",
    ],
)
def test_a_flag_reaches_vllm_word_for_word(word: str) -> None:
    made = plan(extra_args=["--x", word])
    for engine in made.engines:
        command = services(made)[engine.name]["command"]
        # what Compose makes of it: `$$` is `$`, and a lone `$` would be a variable
        assert not re.search(r"(?<!\$)(?:\$\$)*\$(?!\$)", "".join(f"{argument}\n" for argument in command))
        assert tuple(argument.replace("$$", "$") for argument in command) == engine.argv


def test_an_engine_has_the_planned_limit_and_asks_no_public_name_server() -> None:
    made = given.plan(given.config(given.toy(replicas=2)))
    for engine in made.engines:
        service = services(made)[engine.name]
        assert service["mem_limit"] == f"{engine.memory_mib}m"
        assert service["dns"] == ["127.0.0.1"]
        assert service["oom_score_adj"] > 0
        assert "cpus" not in service


def test_an_engine_keeps_as_many_cores_busy_as_stack_yaml_says() -> None:
    made = given.plan(given.config(given.toy(cpu_limit=0.8)))
    assert [services(made)[engine.name]["cpus"] for engine in made.engines] == [0.8]


def test_a_limit_that_is_not_known_is_none() -> None:
    assert all("mem_limit" not in SERVICES[name] for name in ENGINES)


def test_an_engine_gets_its_gpus_by_uuid() -> None:
    made = plan(tensor_parallel_size=2)
    for engine in made.engines:
        assert services(made)[engine.name]["devices"] == [f"nvidia.com/gpu={uuid}" for uuid in engine.gpus]
        assert len(engine.gpus) == 2
        # an image's own NVIDIA_VISIBLE_DEVICES=all would give every GPU where NVIDIA's runtime is Docker's default
        assert engine.environment["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_a_cpu_engine_asks_for_no_device() -> None:
    assert "devices" not in services(given.plan(given.config()))["engine-toy-0"]


def test_an_engine_has_the_planned_times_and_mounts() -> None:
    made = plan(shutdown_timeout=77, startup_timeout=1234)
    for engine in made.engines:
        service = services(made)[engine.name]
        assert service["stop_grace_period"] == "92s"
        assert service["healthcheck"]["start_period"] == "1234s"
        assert service["healthcheck"]["interval"] == "3s"
        assert service["volumes"] == [
            f"{engine.model_dir}:/model:ro",
            f"{engine.cache_dir}:/home/vllm",
            f"{engine.evidence_dir}:/evidence",
            "${STATE_DIR:?}/live/compose/engine:/stack:ro",
            "${STATE_DIR:?}/textfile:/textfile",
        ]
        assert service["entrypoint"] == list(engine.entrypoint)
        assert {name: str(value) for name, value in service["environment"].items()} == engine.environment


def test_the_health_check_is_in_the_tree_and_knows_whom_it_checks() -> None:
    tree = tree_of(plan())
    for engine in plan().engines:
        service = SERVICES[engine.name]
        *command, script = service["healthcheck"]["test"]
        assert command == ["CMD", "python3", "-S"]
        assert "compose/engine" + script.removeprefix("/stack") in tree
        assert service["environment"]["ENGINE_NAME"] == engine.name
        assert service["environment"]["SERVED_MODEL_NAME"] == engine.served_model_name


def test_the_node_exporter_reads_what_the_engines_count_and_writes_nothing() -> None:
    exporter = SERVICES["node-exporter"]
    assert "--collector.textfile.directory=/textfile" in exporter["command"]
    assert "${STATE_DIR:?}/textfile:/textfile:ro" in exporter["volumes"]


def test_grafana_is_in_the_stack_only_where_the_plan_has_it() -> None:
    values = variables(given.plan(given.config(device="cuda", observability={"grafana": {"enabled": False}})))
    assert values["COMPOSE_FILE"].split(":") == [file for file in COMPOSE_FILES if file != "compose/grafana.yaml"]
    assert not [name for name in values if name.startswith("GRAFANA")]


def test_grafana_lets_nobody_in_without_a_password_and_tells_and_fetches_nothing() -> None:
    environment = SERVICES["grafana"]["environment"]
    off = {name for name, value in environment.items() if value == "false"}
    assert off >= {f"GF_{name}_ENABLED" for name in (
        "AUTH_ANONYMOUS", "PUBLIC_DASHBOARDS", "SNAPSHOTS_EXTERNAL", "ANALYTICS_REPORTING", "NEWS_NEWS_FEED",
        "PLUGINS_PLUGIN_ADMIN", "UNIFIED_ALERTING",
    )}  # fmt: skip
    assert off >= {"GF_USERS_ALLOW_SIGN_UP", "GF_ANALYTICS_CHECK_FOR_UPDATES", "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES"}
    for name in ("GF_PLUGINS_PREINSTALL_DISABLED", "GF_SECURITY_DISABLE_GRAVATAR"):
        assert environment[name] == "true"
    assert environment["GF_SERVER_ROOT_URL"] == "http://${GRAFANA_PUBLISH:?}/"


def test_grafanas_secrets_are_files_that_it_alone_reads_and_no_value_is_in_the_tree(tmp_path: Path) -> None:
    service = SERVICES["grafana"]
    # "$$" is Compose's own "$"; what Grafana does with the rest is its documented $__file{}
    values = [str(value) for value in service["environment"].values()]
    named = [found[1] for value in values if (found := re.fullmatch(r"\$\$__file\{(.*)\}", value))]
    assert "${STATE_DIR:?}/secrets/grafana:/run/secrets:ro" in service["volumes"]
    copies = {f"/run/secrets/{copy.name}": copy for copy in grafana.ensure(tmp_path)}
    assert set(named) == set(copies)
    assert {f"{copy.uid}:{copy.uid}" for copy in copies.values()} == {service["user"]}
    assert {copy.path(tmp_path).parent for copy in copies.values()} == {tmp_path / "secrets/grafana"}


def test_grafana_writes_to_its_volume_alone_and_finds_what_is_provisioned_in_the_tree() -> None:
    tree, service = tree_of(plan()), SERVICES["grafana"]
    mounts = [volume.removeprefix("${STATE_DIR:?}/").split(":") for volume in service["volumes"]]
    assert [mount for mount in mounts if mount[2:] != ["ro"]] == [["grafana", "/var/lib/grafana"]]
    folders = [source.removeprefix("live/") + "/" for source, *_ in mounts if source.startswith("live/")]
    for path in (path for path in tree if path.startswith("grafana/")):
        assert sum(path.startswith(folder) for folder in folders) == 1, path
    (provider,) = parsed(tree["grafana/provisioning/dashboards/vllm-onprem.yaml"])["providers"]
    dashboards = provider["options"]["path"]
    assert ["live/grafana/dashboards", dashboards, "ro"] in mounts
    assert provider["allowUiUpdates"] is False
    home = service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.replace(dashboards, "grafana/dashboards") in tree


def test_grafanas_data_source_is_the_prometheus_of_the_stack_under_a_fixed_uid() -> None:
    (source,) = parsed(tree_of(plan())["grafana/provisioning/datasources/prometheus.yaml"])["datasources"]
    assert (source["uid"], source["editable"], source["access"]) == ("prometheus", False, "proxy")
    assert source["url"] == "http://prometheus:9090"
    assert set(SERVICES["grafana"]["networks"]) & set(SERVICES["prometheus"]["networks"])


def test_grafana_has_a_health_check_that_asks_what_the_smoke_test_asks() -> None:
    check = SERVICES["grafana"]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert check["test"][-1] == "http://127.0.0.1:3000/api/health"
    assert "entrypoint" not in SERVICES["grafana"], "its own reads the files of the secrets"


def test_prometheus_scrapes_every_planned_target_with_its_labels() -> None:
    made = plan()
    tree = tree_of(made)
    jobs = parsed(tree["prometheus/prometheus.yml"])["scrape_configs"]
    scraped = set()
    for job in jobs:
        (discovery,) = job["file_sd_configs"]
        (file,) = discovery["files"]
        for group in json.loads(tree[file.removeprefix("/etc/")]):
            scraped |= {(job["job_name"], address, *sorted(group["labels"].items())) for address in group["targets"]}
    assert scraped == {(target.job, target.address, *sorted(target.labels.items())) for target in made.targets}


def shipping(url: str) -> Plan:
    return given.plan(given.config(observability={"log_shipping": {"url": url}}))


def test_logs_are_shipped_where_a_stack_asks_for_it_and_nowhere_else() -> None:
    assert LOG_SHIPPING not in variables(given.plan(given.config()))["COMPOSE_FILE"]
    values = variables(shipping("https://logs.example.org/insert?stream=a&b=c"))
    assert LOG_SHIPPING in values["COMPOSE_FILE"].split(":")
    told = {name: value for name, value in values.items() if name.startswith("LOG_COLLECTOR_")}
    assert told == {
        "LOG_COLLECTOR_HOST": "logs.example.org",
        "LOG_COLLECTOR_PORT": "443",
        "LOG_COLLECTOR_PATH": "/insert?stream=a&b=c",
        "LOG_COLLECTOR_TLS": "on",
    }
    plain = variables(shipping("http://logs:9428"))
    assert [plain[f"LOG_COLLECTOR_{what}"] for what in ("PORT", "PATH", "TLS")] == ["9428", "/", "off"]


def test_who_ships_logs_reads_them_and_nothing_else_and_reaches_no_part() -> None:
    assert SHIPPER["networks"] == ["logs"]
    assert "ports" not in SHIPPER
    folder, *others = SHIPPER["volumes"]
    assert (folder["type"], folder["read_only"], folder["bind"]) == ("bind", True, {"create_host_path": False})
    assert [volume.split(":")[-1] for volume in others] == ["ro", "/buffer"]
    assert "docker.sock" not in str(SHIPPER)


def test_every_variable_of_the_shipper_and_of_its_configuration_is_set() -> None:
    made = shipping("http://logs.example.org:9428/insert/jsonline")
    tree, values = tree_of(made), variables(made)
    text = tree[LOG_SHIPPING].decode()
    assert set(REFERENCE.findall(text)) <= {name for name, value in values.items() if value}
    assert "$" not in REFERENCE.sub("", text)
    configuration = tree["compose/fluent-bit/fluent-bit.yaml"].decode()
    assert set(re.findall(r"\$\{(\w+)\}", configuration)) == SHIPPER["environment"].keys()


def test_another_collector_replaces_the_shipper_and_nothing_else() -> None:
    before, after = (service_hashes(tree_of(shipping(f"http://logs.example.org/{path}"))) for path in ("a", "b"))
    assert {name for name, digest in after.items() if before[name] != digest} == {"fluent-bit"}
