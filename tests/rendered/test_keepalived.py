"""host/keepalived: read by keepalived itself, and the floating address moves when a gateway stops answering."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rendered.namespaces import Network, needed, network
from stack.gateway_state import GatewayState
from stack.plan.fleet_ports import PART_PORTS
from stack.render import render
from stacks import ROOT
from unit import given
from waiting import until

ADDRESS = "10.0.0.100"
GATEWAYS = {"gw-a": "10.0.0.1", "gw-b": "10.0.0.2"}
SCRIPT = "/etc/keepalived/check_gateway.sh"


def files(host: str) -> dict[str, str]:
    """File name -> content, of one of two gateway hosts."""
    config = given.config(gateway={"floating_address": ADDRESS})
    hosts = [given.host(name, n + 1, roles=["gateway"], interface="eth0") for n, name in enumerate(GATEWAYS)]
    plan = given.fleet(config, *hosts, given.host("all", 9, roles=["engines", "observability"]))[host]
    folder = "host/keepalived/"
    tree = render(plan, GatewayState(), ROOT)
    return {path.removeprefix(folder): text.decode() for path, text in tree.items() if path.startswith(folder)}


@pytest.fixture
def net() -> Iterator[Network]:
    needed("keepalived", "curl")
    with network() as built:
        for host, address in GATEWAYS.items():
            built.add(host, address)
        yield built


def put(host: str, folder: Path) -> Path:
    """The files of a host where a test may have them; gives the configuration's path."""
    folder.mkdir()
    folder.chmod(0o755)
    for name, text in files(host).items():
        (folder / name).write_text(text.replace(SCRIPT, str(folder / "check_gateway.sh")))
        (folder / name).chmod(0o644)
    return folder / "keepalived.conf"


def config_test(net: Network, host: str, path: Path) -> tuple[int, str]:
    """(exit code, what keepalived has to say); nothing, where it is content."""
    log = path.with_suffix(".log")
    log.unlink(missing_ok=True)
    # as the role fleet asks it
    ignoring = ("env", "--ignore-signal=TERM")
    done = net.run(host, *ignoring, "keepalived", f"--config-test={log}", f"--use-file={path}", check=False)
    return done.returncode, log.read_text() if log.exists() else ""


def test_keepalived_accepts_what_is_rendered_and_refuses_what_is_wrong(net: Network, tmp_path: Path) -> None:
    for host in GATEWAYS:
        path = put(host, tmp_path / host)
        code, said = config_test(net, host, path)
        assert (code, said) == (0, "")
    broken = tmp_path / "gw-a/broken.conf"
    broken.write_text(path.read_text().replace("virtual_router_id 100", "virtual_router_id 1000"))
    code, said = config_test(net, "gw-a", broken)
    assert code != 0
    assert "not valid" in said


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that nobody, as whom the check runs, may read."""
    with TemporaryDirectory(prefix="vllm-onprem-keepalived-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_the_floating_address_leaves_a_gateway_that_does_not_answer(net: Network, open_folder: Path) -> None:
    def has(host: str) -> bool:
        return f"inet {ADDRESS}/" in net.run(host, "ip", "-4", "address", "show", "dev", "eth0").stdout

    parts = {
        (host, service): net.serve(host, address, PART_PORTS[service][0])
        for host, address in GATEWAYS.items()
        for service in ("nginx", "haproxy", "haproxy-standby")
    }
    for host in GATEWAYS:
        path = put(host, open_folder / host)
        pids = [f"--pid={open_folder}/{host}.pid", f"--vrrp_pid={open_folder}/{host}.vrrp.pid"]
        net.popen(host, "keepalived", "--dont-fork", "--vrrp", *pids, f"--use-file={path}")
    until(lambda: has("gw-a") != has("gw-b"), 60)
    # whoever was ready first has it, and keeps it
    first, second = ("gw-a", "gw-b") if has("gw-a") else ("gw-b", "gw-a")
    parts[first, "haproxy"].terminate()
    time.sleep(5)
    assert has(first), "the standby serves"
    parts[first, "nginx"].terminate()
    moved = until(lambda: has(second) and not has(first), 60)
    print(f"\nthe floating address moved {moved:.1f} s after nginx was gone")
    net.serve(first, GATEWAYS[first], PART_PORTS["nginx"][0])
    time.sleep(6)
    assert has(second), "it stays where it serves"
    assert not has(first)
