"""Every example and case, rendered, and each file checked by the program that will read it."""

from __future__ import annotations

import pytest

from rendered.conftest import Programs
from stack.errors import StackError
from stack.render import manifest, render
from stack.tree import write_tree
from stack.validate import validate
from stacks import ROOT, plans, stack_files


def test_nginx_haproxy_promtool_amtool_and_compose_accept_every_stack(programs: Programs) -> None:
    refused = []
    for number, (name, plan) in enumerate(plans(programs.images, images_built=True)):
        tree = programs.scratch / f"tree-{number}"
        write_tree(tree, render(plan, programs.state, ROOT))
        try:
            validate(tree, plan.images, programs.folder, programs.client)
        except StackError as error:
            refused.append(f"{name}: {error}")
    assert not refused, "\n".join(refused)


@pytest.mark.parametrize(
    ("path", "program"),
    [
        ("nginx/nginx.conf", "nginx"),
        ("nginx/njs/gateway.js", "nginx"),
        ("haproxy/haproxy.cfg", "haproxy"),
        ("prometheus/prometheus.yml", "promtool"),
        ("prometheus/rules/targets.yaml", "promtool"),
        ("prometheus/alertmanager.yml", "amtool"),
        ("compose.yaml", "docker-compose"),
    ],
)
def test_a_broken_file_is_refused_by_its_program(programs: Programs, path: str, program: str) -> None:
    _, plan = next(plans(programs.images, images_built=True))
    files = render(plan, programs.state, ROOT)
    files[path] += b"\nno_such_thing {{ ;\n"
    files["manifest.json"] = manifest({name: data for name, data in files.items() if name != "manifest.json"})
    tree = programs.scratch / f"broken-{path.replace('/', '-')}"
    write_tree(tree, files)
    with pytest.raises(StackError, match=program) as refusal:
        validate(tree, plan.images, programs.folder, programs.client)
    others = {"nginx", "haproxy", "promtool", "amtool", "docker-compose"} - {program}
    named = {other for other in others if f"{other} check" in str(refusal.value) or f"{other} -" in str(refusal.value)}
    assert not named


def test_every_example_is_among_them() -> None:
    files = {path.name for path in stack_files()}
    assert {path.name for path in (ROOT / "compose/examples").iterdir()} <= files
