"""Every alert fires when it should and is silent when it should be: promtool runs the cases of tests/rules/."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from docker.errors import ContainerError

import alert_cases
from rendered.conftest import Programs
from stack.observe import files


def run(programs: Programs, name: str, tests: dict[str, dict[str, Any]]) -> str:
    """What promtool says of these tests; raises ContainerError when one fails."""
    folder = programs.scratch / name
    rules = {
        path.rsplit("/", 1)[1]: content for path, content in files.rule_files(alert_cases.plan().as_dict()).items()
    }
    made = {test: yaml.safe_dump(content, width=10_000).encode() for test, content in tests.items()}
    folder.mkdir()
    for file, content in {**rules, **made}.items():
        (folder / file).write_bytes(content)
    output: bytes = programs.client.containers.run(
        programs.images["prometheus"], entrypoint=["promtool"], command=["test", "rules", *tests], working_dir="/rules",
        volumes={str(folder): {"bind": "/rules", "mode": "ro"}}, network_mode="none", user="65534:65534", remove=True,
        stderr=True,
    )  # fmt: skip
    return output.decode()


def test_every_case_is_as_it_says(programs: Programs) -> None:
    try:
        assert "SUCCESS" in run(programs, "rules", alert_cases.promtool_tests())
    except ContainerError as error:
        pytest.fail(str(error.stderr.decode() if isinstance(error.stderr, bytes) else error.stderr))


def test_a_case_that_is_not_so_is_found(programs: Programs) -> None:
    tests = alert_cases.promtool_tests()
    name, file = next(iter(tests.items()))
    first = file["tests"][0]["promql_expr_test"][0]
    wrong = {**file, "tests": [{**file["tests"][0], "promql_expr_test": [{**first, "exp_samples": []}]}]}
    with pytest.raises(ContainerError):
        run(programs, "wrong-rules", {name: wrong})
