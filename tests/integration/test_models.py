"""Adapters, embeddings, media, and models that cannot be served: on real engines, through the gateway."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
import yaml

from integration.conftest import ROOT, Done, remove, run_script
from stack.docker_host import connect, containers, started
from stack.models.toy import LAYERS

STACK_FILE = Path(__file__).with_name("models.yaml")
STATE = ROOT / ".test-state-models"
PROJECT, URL = "vllm-onprem-test-models", "https://localhost:18643"
QUESTION = {"prompt": "select the name", "max_tokens": 12, "temperature": 0}


@dataclass(frozen=True)
class Models:
    """The running stack, and what the command that brought it up printed."""

    client: docker.DockerClient
    first_up: Done

    @property
    def state(self) -> Path:
        return STATE / "state/stacks" / PROJECT

    def post(self, path: str, body: Any, client: str = "default") -> requests.Response:
        """One request of a client, never retried."""
        return requests.post(f"{URL}/v1/{path}", json=body, headers=self._key(client), verify=self._ca, timeout=60)

    def listed(self, client: str) -> list[str]:
        answer = requests.get(f"{URL}/v1/models", headers=self._key(client), verify=self._ca, timeout=60)
        return [entry["id"] for entry in answer.json()["data"]]

    def started(self) -> dict[str, tuple[str, str]]:
        return started(containers(self.client, PROJECT))

    @property
    def _ca(self) -> str:
        return str(self.state / "gateway.crt")

    def _key(self, client: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {(self.state / 'secrets/api-keys' / client).read_text().strip()}"}


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    client = connect()
    remove(client, PROJECT, STATE)
    up = run_script("up", str(STACK_FILE))
    try:
        assert up.code == 0, up.err
        yield Models(client, up)
    finally:
        remove(client, PROJECT, STATE)


def test_smoke_asks_each_model_and_adapter_for_what_it_does(models: Models) -> None:
    done = run_script("smoke", str(STACK_FILE), "--json")
    passed = {check["name"] for check in json.loads(done.out)["checks"] if check["status"] == "passed"}
    assert done.code == 0, done.out
    assert {"completion toy", "completion toy-sql", "embedding toy-embed", "replica engine-toy-embed-0"} <= passed
    assert "completion toy-embed" not in passed


def test_an_adapter_answers_otherwise_than_its_base_model(models: Models) -> None:
    answers = [models.post("completions", {"model": name, **QUESTION}) for name in ("toy", "toy-sql", "toy")]
    texts = [answer.json()["choices"][0]["text"] for answer in answers]
    assert texts[0] == texts[2] != texts[1]
    assert answers[1].json()["model"] == "toy-sql"


def test_a_client_of_an_adapter_is_told_of_it_alone(models: Models) -> None:
    assert models.listed("default") == ["toy", "toy-sql", "toy-embed"]
    assert models.listed("sql") == ["toy-sql"]
    assert models.post("completions", {"model": "toy-sql", **QUESTION}, "sql").status_code == 200
    assert models.post("completions", {"model": "toy", **QUESTION}, "sql").status_code == 404


def test_the_access_log_says_which_adapter_was_asked_for(models: Models) -> None:
    answer = models.post("completions", {"model": "toy-sql", **QUESTION})
    time.sleep(2)  # the log is written once a second
    log = containers(models.client, PROJECT)["nginx"].logs(tail=50).decode()
    (line,) = (line for line in log.splitlines() if answer.headers["X-Request-Id"] in line)
    entry = json.loads(line)
    assert (entry["model"], entry["pool"], entry["replica"]) == ("toy-sql", "toy", "engine-toy-0")


def test_an_embedding_model_gives_embeddings_and_each_path_is_for_its_own_models(models: Models) -> None:
    answer = models.post("embeddings", {"model": "toy-embed", "input": ["one", "another"]}).json()
    one, another = (entry["embedding"] for entry in answer["data"])
    assert len(one) == len(another) == 256
    assert one != another
    for path, body in (
        ("completions", {"model": "toy-embed", **QUESTION}),
        ("chat/completions", {"model": "toy-embed", "messages": [{"role": "user", "content": "x"}]}),
        ("embeddings", {"model": "toy", "input": "x"}),
    ):
        refused = models.post(path, body)
        assert refused.status_code == 400
        assert "This model answers at /v1/" in refused.json()["error"]["message"]


def image(url: object) -> dict[str, Any]:
    return {"model": "toy", "max_tokens": 2, "messages": [{"role": "user", "content": [url]}]}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://engine-toy-embed-0:8000/metrics"}},
        {"type": "image_url", "image_url": {"url": "HTTPS://169.254.169.254/latest/meta-data"}},
        {"type": "image_url", "image_url": "file:///etc/passwd"},
        {"type": "image_url", "image_url": {"url": " data:image/png;base64,AAAA"}},
        {"image_url": "http://prometheus:9090/"},
        {"type": "video_url", "video_url": {"url": "ftp://example.org/x"}},
        {"type": "audio_url", "audio_url": {"url": ["http://example.org/x"]}},
        {"type": "text", "text": "x", "new_kind_url": "//example.org/x"},
    ],
)
def test_no_engine_is_made_to_fetch_anything(models: Models, part: dict[str, Any]) -> None:
    answer = models.post("chat/completions", image(part))
    assert answer.status_code == 400
    assert "data: URLs only" in answer.json()["error"]["message"]


def test_media_within_the_request_and_text_parts_pass_the_gateway(models: Models) -> None:
    within = models.post("chat/completions", image({"type": "image_url", "image_url": {"url": "data:image/png,x"}}))
    # the toy model cannot see, which is its engine's own answer
    assert "data: URLs only" not in within.text
    text = models.post("chat/completions", image({"type": "text", "text": "https://example.org/x"}))
    assert text.status_code == 200, text.text


def test_a_model_that_cannot_be_served_is_refused_and_the_mended_one_served_by_the_same_command(
    models: Models, tmp_path: Path
) -> None:
    folder = tmp_path / "long"
    shutil.copytree(STATE / "state/models/toy-llama", folder)
    tmp_path.chmod(0o755)
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 1_500_000}
    document = yaml.safe_load(STACK_FILE.read_text())
    long = document["models"][1] | {"served_model_name": "long", "source": {"path": str(folder)}, "task": "generate"}
    document["models"].append(long | {"max_num_seqs": 8})
    path = tmp_path / "stack.yaml"
    before = models.started()

    def up(length: int, **wrong: int) -> Done:
        (folder / "config.json").write_text(json.dumps(config | wrong))
        document["models"][2]["max_model_len"] = length
        path.write_text(yaml.safe_dump(document))
        return run_script("up", str(path))

    disagrees = up(2048, num_hidden_layers=LAYERS + 1)
    assert (disagrees.code, "models[2].source.path" in disagrees.err) == (2, True), disagrees.err
    assert f"num_hidden_layers is {LAYERS + 1}" in disagrees.err
    assert models.started() == before

    no_space = up(1_500_000)
    assert no_space.code == 1
    assert "engine-long-0 ended 1 times while starting: no space for the KV cache" in no_space.err
    assert "Lower max_model_len to at most " in no_space.err
    assert no_space.err.rstrip().endswith("The previous stack was put back and is running.")
    assert models.started() == before

    served = up(2048)
    assert served.code == 0, served.err
    assert models.started().items() >= before.items()
    assert models.post("completions", {"model": "long", **QUESTION}).status_code == 200
