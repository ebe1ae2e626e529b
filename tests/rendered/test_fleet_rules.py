"""Alerts of a fleet, evaluated by promtool: an engine's own host, whichever gateway saw it, and GPUs by host."""

from __future__ import annotations

from typing import Any

import yaml

from rendered.conftest import Programs
from stack.observe import files
from unit import given

HOSTS = (
    given.host("gw-a", 1, roles=["gateway"]),
    given.host("gw-b", 2, roles=["gateway", "observability"]),
    given.host("gpu-a", 11, 2, roles=["engines"]),
    given.host("gpu-b", 12, 2, roles=["engines"]),
)
CONFIG = given.config(given.toy(replicas=4), device="cuda")
UP = 'up{job="vllm",host="gpu-b",server="engine-toy-1",model="toy",replica="1",instance="10.0.0.12:18000"}'
HEAT = 'DCGM_FI_DEV_GPU_TEMP{{host="{host}",UUID="{uuid}",gpu="{n}"}}'


def status(host: str, state: str) -> str:
    return (
        f'haproxy_server_status{{job="haproxy",host="{host}",proxy="toy",server="engine-toy-1",state="{state}",'
        f'instance="{host}:17405"}}'
    )


def alert(name: str, labels: str) -> dict[str, Any]:
    return {"labels": f'ALERTS{{alertname="{name}",alertstate="firing",{labels}}}', "value": 1}


def case(name: str, series: dict[str, str], expected: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{name.split(maxsplit=1)[0]}",alertstate="firing"}}',
                "eval_time": "10m",
                "exp_samples": expected,
            }
        ],
    }


def heat() -> dict[str, str]:
    """A temperature of every GPU but one of gpu-b, which is silent."""
    cards = [(host.name, n, gpu.uuid) for host in HOSTS for n, gpu in enumerate(host.gpus)]
    return {HEAT.format(host=host, uuid=uuid, n=n): "40x20" for host, n, uuid in cards[:-1]}


def test_alerts_of_a_fleet_name_the_host_of_the_engine(programs: Programs) -> None:
    plan = given.fleet(CONFIG, *HOSTS)["gw-b"].as_dict()
    folder = programs.scratch / "fleet-rules"
    folder.mkdir()
    for path, content in files.rule_files(plan).items():
        (folder / path.rsplit("/", 1)[1]).write_bytes(content)
    own = 'host="gpu-b",proxy="toy",server="engine-toy-1",about="engine",severity="ticket"'
    tests = [
        case(
            "ReplicaOutOfPool of two gateways is one alert",
            {UP: "0x20", status("gw-a", "DOWN"): "1x20", status("gw-b", "DOWN"): "1x20"},
            [alert("ReplicaOutOfPool", own)],
        ),
        case(
            "ReplicaOutOfPool of one gateway",
            {UP: "1x20", status("gw-a", "DOWN"): "1x20", status("gw-b", "DOWN"): "0x20"},
            [alert("ReplicaOutOfPool", own)],
        ),
        case("ReplicaOutOfPool of none", {UP: "1x20", status("gw-a", "DOWN"): "0x20"}, []),
        case(
            "GpuMissing on its own host",
            {**heat(), 'up{job="dcgm",host="gpu-a"}': "1x20", 'up{job="dcgm",host="gpu-b"}': "1x20"},
            [alert("GpuMissing", 'host="gpu-b",severity="page"')],
        ),
        case(
            "GpuMissing where nothing answers",
            {'up{job="dcgm",host="gpu-a"}': "0x20"},
            [alert("GpuMissing", 'host="gpu-a",severity="page"')],
        ),
    ]
    document = {"rule_files": ["serving.yaml", "gpu.yaml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "test.yml").write_text(yaml.safe_dump(document, width=10_000))
    output: bytes = programs.client.containers.run(
        programs.images["prometheus"], entrypoint=["promtool"], command=["test", "rules", "test.yml"],
        working_dir="/rules", volumes={str(folder): {"bind": "/rules", "mode": "ro"}}, network_mode="none",
        user="65534:65534", remove=True, stderr=True,
    )  # fmt: skip
    assert "SUCCESS" in output.decode()
