"""stack.yaml as a frozen, typed, validated object. stack.example.yaml documents every key."""

from __future__ import annotations

import re
import unicodedata
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from stack.config_conflicts import conflicts
from stack.config_errors import problems_of
from stack.errors import InputError, Problem
from stack.yaml_input import load_mapping

# vLLM flags that the plan sets itself: given again in extra_args, the last one would win unseen.
OWNED_FLAGS = {
    "--model": "source",
    "--served-model-name": "served_model_name",
    "--dtype": "dtype",
    "--max-model-len": "max_model_len",
    "--max-num-seqs": "max_num_seqs",
    "--gpu-memory-utilization": "gpu_memory_utilization",
    "--enable-prefix-caching": "enable_prefix_caching",
    "--no-enable-prefix-caching": "enable_prefix_caching",
    "--quantization": "quantization",
    "-q": "quantization",
    "--tensor-parallel-size": "tensor_parallel_size",
    "--max-num-batched-tokens": "max_num_batched_tokens",
    "--kv-cache-dtype": "kv_cache_dtype",
    "-tp": "tensor_parallel_size",
    "--pipeline-parallel-size": None,  # these need GPUs that the plan does not count
    "-pp": None,
    "--data-parallel-size": None,
    "-dp": None,
    "--shutdown-timeout": "shutdown_timeout",
    "--runner": "task",
    "--enable-lora": "lora_adapters",
    "--no-enable-lora": "lora_adapters",
    "--lora-modules": "lora_adapters",
    "--max-loras": "lora_adapters",
    "--max-lora-rank": "max_lora_rank",
    "--host": None,
    "--port": None,
    "--uds": None,
    "--api-key": None,
    "--ssl-keyfile": None,
    "--ssl-certfile": None,
    "--config": None,
    "--hf-token": "hub.token_file",  # engines fetch nothing, and a flag is no place for a secret
}


# `auto`: the plan chooses. stack.sizing.resolve puts a number in its place before anything else reads the model.
AUTO = -1
UNSAFE_IN_PATHS = ":$'\"\\"


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
        raise ValueError("use lower-case letters, digits and inner dashes, at most 63")
    return value


def _model_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", value):
        raise ValueError("use letters, digits and . _ / - (at most 128), starting with a letter or digit")
    return value


def _path(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError("an empty path, or one with characters that cannot be shown")
    if ".." in Path(value).parts:
        raise ValueError("the path leaves its folder ('..'); give it from the project's folder, or absolute")
    bad = [char for char in UNSAFE_IN_PATHS if char in value]
    if bad:
        raise ValueError(f"{' '.join(bad)} in a path is syntax to Compose or its .env file")
    return value


def _hub_id(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", value) or ".." in value:
        raise ValueError("a hub id is written organisation/model")
    return value


def _revision(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", value):
        raise ValueError("a revision is a full commit id of 40 hex digits; branches and tags move")
    return value


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("a SHA-256 is 64 hex digits, as sha256sum prints them")
    return value


def _hub_mirror(value: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[\w.-]+)*/?", value):
        raise ValueError("the address of a hub such as https://hub.example.org, without user or password")
    return value.rstrip("/")


def _server_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", value):
        raise ValueError("a DNS name or an IPv4 address")
    return value


def _duration(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,4}[hdwy]", value):
        raise ValueError("a number and h, d, w or y, such as 30d")
    return value


def _mirror(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)*", value):
        raise ValueError("a registry address such as registry.example.org:5000/mirror")
    host = value.split("/", 1)[0]
    if not (set(host) & set(".:") or host == "localhost"):
        raise ValueError(f"Docker takes {host!r} for a user of Docker Hub: give the registry's full name or its port")
    return value


def _free_flags(value: tuple[str, ...]) -> tuple[str, ...]:
    for argument in value:
        owned = _owned_flag(argument.split("=", 1)[0])
        if owned:
            key = OWNED_FLAGS[owned]
            what = f"set the key {key}" if key else "the stack sets this flag itself"
            raise ValueError(f"{argument.split('=', 1)[0]} is not free: {what}")
    return value


def _owned_flag(flag: str) -> str | None:
    # vLLM's parser also takes underscores for dashes, a flag's beginning for the flag, and -tp2 for -tp 2
    if flag.startswith("--"):
        flag = "--" + flag[2:].replace("_", "-")
        return next((owned for owned in OWNED_FLAGS if len(flag) > 3 and owned.startswith(flag)), None)
    short = [owned for owned in OWNED_FLAGS if not owned.startswith("--")]
    return next((owned for owned in short if flag.startswith(owned)), None)


def _flag(value: str) -> str:
    if any(unicodedata.category(char) == "Cc" and char not in "\n\t" for char in value):
        raise ValueError("control characters in a flag")
    return value


def _or_auto(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    return AUTO if value == "auto" else handler(value)


def _listen(value: str) -> str:
    try:
        return str(IPv4Address(value))
    except ValueError:
        raise ValueError("an IPv4 address of this host, or 0.0.0.0 for all of them") from None


Name = Annotated[str, AfterValidator(_name)]
ModelName = Annotated[str, AfterValidator(_model_name)]
FilePath = Annotated[str, AfterValidator(_path)]
Port = Annotated[int, Field(ge=1, le=65535)]
Listen = Annotated[str, AfterValidator(_listen)]
OrAuto = WrapValidator(_or_auto)
Flag = Annotated[str, Field(min_length=1, max_length=8192), AfterValidator(_flag)]


class _Section(BaseModel):
    # strict: "8" is not 8 and yes is not "yes": what a person reads in the file is what runs.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(_Section):
    """Where a model's files come from: exactly one of path, hub, archive, toy."""

    path: FilePath | None = None
    hub: Annotated[str, AfterValidator(_hub_id)] | None = None
    revision: Annotated[str, AfterValidator(_revision)] | None = None
    archive: FilePath | None = None
    sha256: Annotated[str, AfterValidator(_sha256)] | None = None
    toy: Literal[True] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Source:
        given = [key for key in ("path", "hub", "archive", "toy") if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"give exactly one of path, hub, archive, toy; found {found}")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision belongs to hub")
        if self.sha256 is not None and self.archive is None:
            raise ValueError("sha256 belongs to archive; a hub states the checksums of its files itself")
        return self


class LoraAdapter(_Section):
    """One LoRA adapter of a model: clients name it like a model, and the same replicas answer."""

    name: ModelName
    source: Source


class Slo(_Section):
    """What users are promised, and the load it is promised for. Seconds, tokens a second."""

    ttft_p99: float | None = Field(None, gt=0.0, le=3600.0)
    tokens_per_second_per_user: float | None = Field(None, gt=0.0, le=10_000.0)
    concurrency: int = Field(32, ge=1, le=100_000)
    prompt_tokens: int = Field(1024, ge=1, le=100_000_000)
    answer_tokens: int = Field(256, ge=1, le=100_000_000)

    @model_validator(mode="after")
    def _some_goal(self) -> Slo:
        if self.ttft_p99 is None and self.tokens_per_second_per_user is None:
            raise ValueError("give ttft_p99, tokens_per_second_per_user, or both")
        return self


class Model(_Section):
    """One model and the pool of replicas that serves it. Keys are spelled as vLLM spells its flags."""

    served_model_name: ModelName
    source: Source
    objective: Literal["throughput", "latency"] | Slo = "throughput"
    replicas: Annotated[int, Field(ge=1, le=64), OrAuto] = 1
    tensor_parallel_size: Annotated[int, Field(ge=1, le=64), OrAuto] = 1
    task: Literal["generate", "embed"] = "generate"
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = "auto"
    max_model_len: Annotated[int, Field(ge=1, le=100_000_000), OrAuto] | None = None
    max_num_seqs: Annotated[int, Field(ge=1, le=65536), OrAuto] = 256
    max_num_batched_tokens: Annotated[int, Field(ge=1, le=1_000_000), OrAuto] | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0), OrAuto] = 0.90
    kv_cache_dtype: Literal["auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    enable_prefix_caching: bool = True
    balancing: Literal["prefix_affinity", "least_connections"] = "prefix_affinity"
    max_queue: int = Field(256, ge=1, le=100_000)
    queue_timeout: int = Field(30, ge=1, le=3600)
    quantization: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}$")] | None = None
    lora_adapters: tuple[LoraAdapter, ...] = Field((), max_length=64, strict=False)
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 16
    cpu_kvcache_space: int = Field(4, ge=1, le=4096)
    memory_limit_gib: int | None = Field(None, ge=1, le=1_000_000)
    shutdown_timeout: int = Field(60, ge=1, le=3600)
    startup_timeout: int = Field(1800, ge=10, le=86400)
    extra_args: Annotated[tuple[Flag, ...], AfterValidator(_free_flags)] = Field((), max_length=200, strict=False)


class Tls(_Section):
    """The user's own certificate chain and private key, PEM files."""

    certificate: FilePath
    key: FilePath


class Client(_Section):
    """One client of the gateway: what it may ask for. What is left out is the gateway's own limit."""

    name: Name
    models: tuple[ModelName, ...] | None = Field(None, min_length=1, max_length=64, strict=False)
    requests_per_second: int | None = Field(None, ge=1, le=100_000)
    concurrency: int | None = Field(None, ge=1, le=100_000)
    max_body_size_mib: int | None = Field(None, ge=1, le=1024)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value


class Gateway(_Section):
    """The one published address: TLS, API keys, limits of rate, time and size."""

    listen: Listen = "0.0.0.0"
    https_port: Port = 8443
    server_name: Annotated[str, AfterValidator(_server_name)] = "localhost"
    tls: Tls | None = None
    api_keys: tuple[Client, ...] = Field((Client(name="default"),), min_length=1, max_length=1000, strict=False)
    requests_per_second: int = Field(500, ge=1, le=100_000)
    concurrency: int = Field(256, ge=1, le=100_000)
    max_body_size_mib: int = Field(8, ge=1, le=1024)
    request_timeout: int = Field(900, ge=1, le=86400)


class Observability(_Section):
    """Prometheus and Alertmanager, on loopback only."""

    retention: Annotated[str, AfterValidator(_duration)] = "30d"
    prometheus_port: Port = 9090
    alertmanager_port: Port = 9093


class Images(_Section):
    """Where container images come from; compose/images.yaml says which."""

    # auto: compose/examples/cpu.yaml as `make` runs it by itself; anywhere else the same as registry
    source: Literal["registry", "archive", "build", "auto"] = "registry"
    mirror: Annotated[str, AfterValidator(_mirror)] | None = None
    archive: FilePath | None = None


class Hub(_Section):
    """Where models that are named by a hub id are fetched from, and what opens gated ones."""

    mirror: Annotated[str, AfterValidator(_hub_mirror)] | None = None
    token_file: FilePath | None = None


class Paths(_Section):
    """Folders on the host; relative ones start at the project's folder."""

    state: FilePath = ".state"
    build: FilePath = "build"


class StackConfig(_Section):
    """What one stack.yaml says. Frozen; equal files give equal objects."""

    name: Name = "vllm-onprem"
    device: Literal["cuda", "cpu"] = "cuda"
    models: tuple[Model, ...] = Field(min_length=1, max_length=64, strict=False)
    gateway: Gateway = Gateway()
    observability: Observability = Observability()
    images: Images = Images()
    hub: Hub = Hub()
    paths: Paths = Paths()


def load_config(path: Path, shown: str | None = None) -> StackConfig:
    """StackConfig from a file.

    Raises InputError with every problem found at once.
    """
    name = shown or str(path)
    document = load_mapping(path, name)
    problems: list[Problem] = []
    config: StackConfig | None = None
    try:
        config = StackConfig.model_validate(document)
    except ValidationError as error:
        problems = problems_of(error, StackConfig)
    problems += conflicts(document)
    if config is None or problems:
        raise InputError(name, problems)
    return config


def problem_at(config: StackConfig, model: Model, key: str, what: str) -> Problem:
    """A Problem whose key path names the model by its place in the file."""
    return Problem(f"models[{config.models.index(model)}].{key}", what)
