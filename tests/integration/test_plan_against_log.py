"""The plan's KV cache against what the running engines logged about theirs."""

from __future__ import annotations

import json

from engine_log import cache_size
from integration.conftest import PROJECT, Stack
from stack.docker_host import containers


def test_every_engine_has_the_tokens_that_the_plan_names(stack: Stack) -> None:
    done = stack.script("plan", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    planned = {sized["served_model_name"]: sized["chosen"] for sized in document["sizing"]["localhost"]}
    running = containers(stack.client, PROJECT)
    engines = document["plans"][0]["engines"]
    assert engines
    for engine in engines:
        said = cache_size(running[engine["name"]].logs().decode(errors="replace"))
        chosen = planned[engine["served_model_name"]]
        print(f"\n{engine['name']}: log {said}, plan {chosen['kv_cache_tokens']} tokens")
        assert said is not None
        assert (said.tokens, said.concurrency) == (chosen["kv_cache_tokens"], chosen["max_concurrency"])
        assert said.length == chosen["setting"]["max_model_len"]
