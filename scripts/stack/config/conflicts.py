"""What two keys of one stack.yaml cannot say together.

Read from the plain document, not from StackConfig: a file with a misspelt key should still hear of its
conflicts in the same message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any

from stack.errors import Problem

_PORTS = {
    ("gateway", "https_port"): 8443,
    ("observability", "prometheus_port"): 9090,
    ("observability", "alertmanager_port"): 9093,
    ("observability", "grafana", "port"): 3000,
}
# Of a replica over several hosts vLLM finds the room for its cache at its start.
_WORKED_OUT_FOR_ONE_HOST = (
    "tensor_parallel_size", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization",
)  # fmt: skip


def conflicts(document: Mapping[str, Any]) -> list[Problem]:
    """Names and ports given twice, clients of models that are not served, keys that device or task rule out."""
    found = (_names_twice, _unknown_models, _ports_twice, _archive, _device, _task, _hosts_of_a_replica)
    return [problem for conflict in found for problem in conflict(document)]


def _section(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _models(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [model if isinstance(model, Mapping) else {} for model in _items(document.get("models"))]


def _served(document: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """(key path, name) of everything that a client can name as its model."""
    for index, model in enumerate(_models(document)):
        yield f"models[{index}].served_model_name", model.get("served_model_name")
        for place, adapter in enumerate(_items(model.get("lora_adapters"))):
            name = adapter.get("name") if isinstance(adapter, Mapping) else None
            yield f"models[{index}].lora_adapters[{place}].name", name


def _names_twice(document: Mapping[str, Any]) -> Iterator[Problem]:
    items = _items(_section(document, "gateway").get("api_keys"))
    keys = [(f"gateway.api_keys[{index}]", _client_name(item)) for index, item in enumerate(items)]
    told = _items(_section(document, "observability").get("receivers"))
    receivers = [(f"observability.receivers[{index}]", _client_name(item)) for index, item in enumerate(told)]
    for named in (list(_served(document)), keys, receivers):
        seen: set[str] = set()
        for where, value in named:
            if isinstance(value, str) and value in seen:
                yield Problem(where, f"{value!r} is given twice")
            seen |= {value} if isinstance(value, str) else set()


def _client_name(item: object) -> object:
    return item.get("name") if isinstance(item, Mapping) else item


def _unknown_models(document: Mapping[str, Any]) -> Iterator[Problem]:
    known = [name for _, name in _served(document)]
    for index, client in enumerate(_items(_section(document, "gateway").get("api_keys"))):
        for name in _items(client.get("models")) if isinstance(client, Mapping) else []:
            if name not in known:
                yield Problem(f"gateway.api_keys[{index}].models", f"no model is served as {name!r}")
    seen: set[object] = set()
    for index, entry in enumerate(_items(_section(_section(document, "observability"), "slo").get("latency"))):
        of = (entry.get("model"), entry.get("metric")) if isinstance(entry, Mapping) else (None, None)
        where = f"observability.slo.latency[{index}].model"
        if isinstance(of[0], str) and of[0] not in known:
            yield Problem(where, f"no model is served as {of[0]!r}")
        if of in seen:
            yield Problem(where, f"{of[0]!r} has a {of[1]} objective already")
        seen.add(of)


def _ports_twice(document: Mapping[str, Any]) -> Iterator[Problem]:
    taken: dict[object, str] = {}
    for (*sections, key), default in _PORTS.items():
        section = reduce(_section, sections, document)
        port, where = section.get(key, default), ".".join([*sections, key])
        if section.get("enabled") is False:
            continue
        if isinstance(port, int) and port in taken:
            yield Problem(where, f"port {port} is also {taken[port]}")
        taken.setdefault(port if isinstance(port, int) else None, where)


def _archive(document: Mapping[str, Any]) -> Iterator[Problem]:
    images = _section(document, "images")
    source, archive = images.get("source", "registry"), images.get("archive")
    if source == "archive" and archive is None:
        yield Problem("images.archive", "images.source is 'archive': name the file that `make images-save` wrote")
    if archive is not None and source != "archive":
        yield Problem("images.archive", f"an archive is named, but images.source is {source!r}; set it to archive")


def _device(document: Mapping[str, Any]) -> Iterator[Problem]:
    device = document.get("device", "cuda")
    if device == "cuda" and _section(document, "images").get("source") == "auto":
        yield Problem(
            "images.source",
            "'auto' is for device cpu only: on a GPU host a registry that does not answer is an error, never a"
            " silent local build; use registry",
        )
    if device == "cpu":
        for index, model in enumerate(_models(document)):
            size = model.get("tensor_parallel_size", 1)
            if isinstance(size, int) and size > 1:
                yield Problem(f"models[{index}].tensor_parallel_size", f"{size} on device cpu; use 1")


def _task(document: Mapping[str, Any]) -> Iterator[Problem]:
    for index, model in enumerate(_models(document)):
        if model.get("task") == "embed" and _items(model.get("lora_adapters")):
            yield Problem(f"models[{index}].lora_adapters", "not with task: embed")
        for place, adapter in enumerate(_items(model.get("lora_adapters"))):
            own, base = (_source_of(part).get("toy") for part in (adapter, model))
            if own and not base:
                where = f"models[{index}].lora_adapters[{place}].source.toy"
                yield Problem(where, "the toy adapter fits the toy model only")


def _hosts_of_a_replica(document: Mapping[str, Any]) -> Iterator[Problem]:
    for index, model in enumerate(_models(document)):
        where = f"models[{index}]"
        nnodes, stages = model.get("nnodes", 1), model.get("pipeline_parallel_size", 1)
        size = model.get("tensor_parallel_size", 1)
        if not isinstance(nnodes, int) or not isinstance(stages, int):
            continue
        if nnodes == 1:
            if stages > 1:
                what = f"{stages} with nnodes 1; GPUs of one host are tensor_parallel_size, stages are for several"
                yield Problem(f"{where}.pipeline_parallel_size", what)
            continue
        for key in _WORKED_OUT_FOR_ONE_HOST:
            if model.get(key) == "auto":
                yield Problem(f"{where}.{key}", f"auto is worked out for one host; with nnodes {nnodes} give a number")
        if document.get("device") == "cpu" and "--enforce-eager" in _items(model.get("extra_args")):
            what = "--enforce-eager on device cpu with nnodes: vLLM 0.32.0 then ends at the first request; leave it out"
            yield Problem(f"{where}.extra_args", what)
        if stages not in (1, nnodes):
            what = f"{stages} with nnodes {nnodes}; use {nnodes} (a stage on each host), or 1"
            yield Problem(f"{where}.pipeline_parallel_size", what)
        elif isinstance(size, int) and size * stages % nnodes:
            what = f"{size} x pipeline_parallel_size {stages} GPUs do not divide by {nnodes} hosts; use"
            yield Problem(f"{where}.nnodes", f"{what} pipeline_parallel_size: {nnodes}, with the GPUs of one host")


def _source_of(part: object) -> Mapping[str, Any]:
    return _section(part, "source") if isinstance(part, Mapping) else {}
