"""Groups, blocks and tokens of the KV cache, worked out by the pinned vLLM's own code for every model of the fixtures.

No engine is started: vLLM's functions are called with the layers that a model has, in the engine's image.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

from rendered.conftest import Programs
from stack.sizing.families import FAMILIES
from stack.sizing.kv_cache import cache_layout, state_bytes
from stack.sizing.shapes import Layer, Shape
from stacks import ROOT
from unit.sizing.fixtures import GIB, NAMES, config, shape

SCRIPT = (ROOT / "tests/rendered/kv_cache_in_vllm.py").read_text()
SIZES, LENGTHS, MEMORY, BATCHED = (1, 4), (100, 8192, 131072), 20 * GIB + 12345, 2048


def case(model: Shape, size: int, length: int) -> dict[str, Any]:
    layout = cache_layout(model, size)
    group = layout.groups[0]

    def plain(layer: Layer) -> dict[str, Any]:
        state = state_bytes(layer, size, model.bytes_per_weight)
        fields = {key: getattr(layer, key) for key in ("kind", "kv_heads", "key_size", "value_size", "window")}
        return {**fields, "state_bytes": state, "page": group.page}

    layers = [plain(layer) for layer, count in model.layers for _ in range(count)]
    return {
        "layers": layers, "size": size, "length": length, "block_size": group.block_size,
        "memory": MEMORY, "batched_tokens": BATCHED,
    }  # fmt: skip


def test_vllm_counts_the_same_blocks_and_tokens(programs: Programs) -> None:
    planned = [name for name in NAMES if config(name)["architectures"][0] in FAMILIES]
    asked = [(name, size, length) for name in planned for size in SIZES for length in LENGTHS]
    cases = [case(shape(name), size, length) for name, size, length in asked]
    command = ["docker", "run", "--rm", "--interactive", "--network", "none", "--entrypoint", "python3"]
    done = subprocess.run(
        [*command, programs.images["vllm"], "-c", SCRIPT],
        input=json.dumps(cases), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert "ANSWERS " in done.stdout, done.stderr[-2000:]
    answers = json.loads(done.stdout.rpartition("ANSWERS ")[2])
    print(f"\n{len(cases)} cases of {len(planned)} models counted by vLLM")
    differing = []
    for (name, size, length), found in zip(asked, answers, strict=True):
        layout = cache_layout(shape(name), size)
        ours = {
            "groups": len(layout.groups),
            "blocks": MEMORY // layout.bytes_per_block,
            "tokens": layout.tokens(MEMORY, length, BATCHED),
            "concurrency": layout.concurrency(MEMORY, length, BATCHED),
        }
        if ours != found:
            differing.append((name, size, length, ours, found))
    assert differing == []
