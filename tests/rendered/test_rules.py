"""Every alert fires when it should and is silent when it should be: promtool runs the cases of tests/rules/.

With the stack's own Prometheus, and with 3: people run these rules on what they have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.errors import BuildError, ContainerError

import alert_cases
from rendered.conftest import Programs
from stack.observe import files

PROMETHEUS_3 = Path(__file__).with_name("prometheus3")


@pytest.fixture(scope="module", params=["2.53", "3."])
def promtool(programs: Programs, request: pytest.FixtureRequest) -> str:
    """An image whose promtool is of this version."""
    version, image = str(request.param), programs.images["prometheus"]
    if version == "3.":
        try:
            made, _ = programs.client.images.build(
                path=str(PROMETHEUS_3), buildargs={"BASE": image}, rm=True, forcerm=True
            )
        except BuildError as error:
            pytest.skip(f"NOT RUN on Prometheus 3: its promtool could not be had: {error}")
        image = str(made.id)
    said: bytes = programs.client.containers.run(image, ["--version"], entrypoint=["promtool"], remove=True)
    assert said.decode().startswith(f"promtool, version {version}")
    print(f"\n{said.decode().splitlines()[0]}", end="")
    return image


def run(programs: Programs, promtool: str, name: str, tests: dict[str, dict[str, Any]]) -> str:
    """What promtool says of these tests; raises ContainerError when one fails."""
    folder = programs.scratch / f"{name}-{promtool.rsplit(':', 1)[-1][:12]}"
    rules = {
        path.rsplit("/", 1)[1]: content for path, content in files.rule_files(alert_cases.plan().as_dict()).items()
    }
    made = {test: yaml.safe_dump(content, width=10_000).encode() for test, content in tests.items()}
    folder.mkdir()
    for file, content in {**rules, **made}.items():
        (folder / file).write_bytes(content)
    output: bytes = programs.client.containers.run(
        promtool, entrypoint=["promtool"], command=["test", "rules", *tests], working_dir="/rules",
        volumes={str(folder): {"bind": "/rules", "mode": "ro"}}, network_mode="none", user="65534:65534", remove=True,
        stderr=True,
    )  # fmt: skip
    return output.decode()


def test_every_case_is_as_it_says(programs: Programs, promtool: str) -> None:
    try:
        assert "SUCCESS" in run(programs, promtool, "rules", alert_cases.promtool_tests())
    except ContainerError as error:
        pytest.fail(str(error.stderr.decode() if isinstance(error.stderr, bytes) else error.stderr))


def test_a_case_that_is_not_so_is_found(programs: Programs, promtool: str) -> None:
    tests = alert_cases.promtool_tests()
    name, file = next(iter(tests.items()))
    first = file["tests"][0]["promql_expr_test"][0]
    wrong = {**file, "tests": [{**file["tests"][0], "promql_expr_test": [{**first, "exp_samples": []}]}]}
    with pytest.raises(ContainerError):
        run(programs, promtool, "wrong-rules", {name: wrong})
