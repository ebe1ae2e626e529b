"""Serving: what the engines do, by model and replica."""

from __future__ import annotations

from boards.assemble import Board, Row, Variable, scraped
from boards.panels import AnyPanel, Levels, Words, graph, heat_map, number
from boards.queries import (
    ENGINE,
    REPLICA,
    REPLICA_NAME,
    Query,
    buckets,
    quantile,
    quantiles,
    rate,
    ratio,
    select,
)

SERIES = "vllm:num_requests_running"
# Others page at 90 % of the KV cache (llm-d#553); from there on requests are preempted.
KV_CACHE = Levels(0.8, 0.9)

LATENCIES = (
    (
        "TTFT", "time to first token", "vllm:time_to_first_token_seconds",
        "Queue and prefill, as the engine sees it. Rising with the queue: too few replicas. Rising without it: longer"
        " prompts, or fewer of them in the prefix cache.",
    ),
    (
        "ITL", "inter-token latency", "vllm:inter_token_latency_seconds",
        "Seconds between two tokens of a stream: what a reader feels. Rising with running requests: the batch is"
        " large. Spikes: long prompts are prefilled in between, or requests were preempted.",
    ),
    (
        "TPOT", "time per output token", "vllm:request_time_per_output_token_seconds",
        "Mean of each request between its first and last token. One slow request shows here, one slow step in ITL.",
    ),
    (
        "E2E", "end to end", "vllm:e2e_request_latency_seconds",
        "A whole request in the engine. Long answers make it long: compare with the generated tokens before TTFT and"
        " ITL.",
    ),
)  # fmt: skip


def serving() -> Board:
    """The dashboard."""
    return Board(
        uid="vllm-serving",
        title="vLLM / Serving",
        description="Requests, latency, tokens and caches of the engines, by model and replica.",
        variables=[
            *scraped(SERIES),
            Variable("model", "Model", SERIES + '{host=~"$host"}'),
            Variable("replica", "Replica", SERIES + '{host=~"$host", model=~"$model"}'),
        ],
        rows=[
            Row("At a glance", _glance()),
            Row("Requests", _requests()),
            Row("Latency", [panel for entry in LATENCIES for panel in _latency(*entry)]),
            Row("Latency by replica", _by_replica()),
            Row("Tokens", _tokens()),
            Row("KV cache and prefix cache", _caches()),
            Row("Engine", _engine()),
        ],
    )


def _glance() -> list[AnyPanel]:
    hits, asked = rate("vllm:prefix_cache_hits_total", ENGINE), rate("vllm:prefix_cache_queries_total", ENGINE)
    return [
        number(
            Words("Requests finished", "Requests that the engines finished, for whatever reason, in a second."),
            "reqps", Query(f"sum ({rate('vllm:request_success_total', ENGINE)})", "requests"),
        ),
        number(
            Words("Running", "Requests in the engines' batches now."),
            "short", Query(f"sum ({select('vllm:num_requests_running', ENGINE)})", "running"),
        ),
        number(
            Words("Waiting", "Requests in the engines' own queues. More than a few for minutes: too few replicas.",
                  "QueueGrowing"),
            "short", Query(f"sum ({select('vllm:num_requests_waiting', ENGINE)})", "waiting"), levels=Levels(1, 20),
        ),
        number(
            Words("TTFT p99, worst model", "99 of 100 requests had their first token within this time.",
                  "TtftBudgetBurn"),
            "s", Query(f"max ({quantile(0.99, 'vllm:time_to_first_token_seconds', ENGINE, 'model')})", "p99"),
        ),
        number(
            Words("KV cache, fullest replica", "Never a mean: one full replica preempts while the others idle.",
                  "KvCacheSaturated"),
            "percentunit", Query(f"max ({select('vllm:kv_cache_usage_perc', ENGINE)})", "KV cache"), levels=KV_CACHE,
        ),
        number(
            Words("Prefix cache hits", "Share of prompt tokens that were in the prefix cache."),
            "percentunit", Query(ratio(hits, asked), "hits"),
        ),
    ]  # fmt: skip


def _requests() -> list[AnyPanel]:
    finished = rate("vllm:request_success_total", ENGINE)
    return [
        graph(
            Words("Requests by model", "Finished requests a second. A model that falls to zero while clients ask for"
                  " it: look at its queue, then at the Gateway dashboard."),
            "reqps", [Query(f"sum by (model) ({finished})", "{{model}}")],
        ),
        graph(
            Words("Requests by replica", "Replicas of one model should be alike. One that is lower is slow, drained"
                  " or wedged."),
            "reqps", [Query(f"sum by ({REPLICA}) ({finished})", REPLICA_NAME)],
        ),
        graph(
            Words("Finish reasons", "length: cut at max_tokens. abort: the client left, or the engine stopped."
                  " error: the engine's own fault. repetition: stopped as it repeated itself.", "EngineErrors"),
            "reqps", [Query(f"sum by (finished_reason) ({finished})", "{{finished_reason}}")], stacked=True,
        ),
        graph(
            Words("Running by replica", "Requests in the batch; its ceiling is max_num_seqs."),
            "short", [Query(f"sum by ({REPLICA}) ({select('vllm:num_requests_running', ENGINE)})",
                            REPLICA_NAME)],
        ),
        graph(
            Words("Waiting by reason", "capacity: the batch or the KV cache is full. deferred: waits for something"
                  " else, such as a grammar or a remote cache."),
            "short", [Query(f"sum by (model, reason) ({select('vllm:num_requests_waiting_by_reason', ENGINE)})",
                            "{{model}} {{reason}}")], stacked=True,
        ),
        graph(
            Words("Time in the queue", "Seconds from arrival to the batch, in the engine; the gateway's own queue is"
                  " on the Gateway dashboard. Its lowest bucket ends at 0.3 s."),
            "s", quantiles("vllm:request_queue_time_seconds", ENGINE, "model"),
        ),
    ]  # fmt: skip


def _latency(short: str, long: str, histogram: str, look: str) -> list[AnyPanel]:
    return [
        heat_map(
            Words(f"{short} distribution", f"Requests by {long}. Two bands are two kinds of requests, or of replicas."),
            "s", buckets(histogram, ENGINE),
        ),
        graph(Words(f"{short} quantiles", look), "s", quantiles(histogram, ENGINE, "model"), width=12),
    ]  # fmt: skip


def _by_replica() -> list[AnyPanel]:
    return [
        graph(
            Words(f"{short} p95 by replica", f"One replica above the others in {long}: its GPU throttles (GPU"
                  " dashboard), it has the long conversations, or it is about to wedge."),
            "s", [Query(quantile(0.95, histogram, ENGINE, REPLICA), REPLICA_NAME)], width=6,
        )
        for short, long, histogram, _ in LATENCIES
    ]  # fmt: skip


def _tokens() -> list[AnyPanel]:
    return [
        graph(
            Words("Prompt tokens", "Tokens prefilled a second, by model, and where they came from: computed, or found"
                  " in a cache."),
            "short", [Query(f"sum by (model, source) ({rate('vllm:prompt_tokens_by_source_total', ENGINE)})",
                            "{{model}} {{source}}")], stacked=True,
        ),
        graph(
            Words("Generated tokens by replica", "Tokens generated a second: what the GPUs are bought for."),
            "short", [Query(f"sum by ({REPLICA}) ({rate('vllm:generation_tokens_total', ENGINE)})",
                            REPLICA_NAME)], stacked=True,
        ),
        graph(
            Words("Tokens per step", "Mean tokens of one engine step: near max_num_batched_tokens the prefill is the"
                  " limit, near the number of running requests the decoding is."),
            "short", [Query(ratio(rate("vllm:iteration_tokens_total_sum", ENGINE),
                                  rate("vllm:iteration_tokens_total_count", ENGINE), "model"), "{{model}}")],
        ),
        heat_map(
            Words("Prompt lengths", "Requests by tokens of their prompt. A new band is a new client or a new prompt."),
            "short", buckets("vllm:request_prompt_tokens", ENGINE),
        ),
        heat_map(
            Words("Answer lengths", "Requests by generated tokens. All in one row: max_tokens cuts them."),
            "short", buckets("vllm:request_generation_tokens", ENGINE),
        ),
    ]  # fmt: skip


def _caches() -> list[AnyPanel]:
    hits, asked = rate("vllm:prefix_cache_hits_total", ENGINE), rate("vllm:prefix_cache_queries_total", ENGINE)
    return [
        graph(
            Words("KV cache by replica", "Share of KV cache blocks in use. At 100 % requests are preempted: their"
                  " work is thrown away and done again.", "KvCacheSaturated"),
            "percentunit", [Query(f"max by ({REPLICA}) ({select('vllm:kv_cache_usage_perc', ENGINE)})",
                                  REPLICA_NAME)], maximum=1, levels=KV_CACHE,
        ),
        graph(
            Words("Prefix cache hits by replica", "Share of prompt tokens found in the cache. Falling on all replicas:"
                  " other prompts. On one: it was restarted, or affinity sends it others' conversations."),
            "percentunit", [Query(ratio(hits, asked, REPLICA), REPLICA_NAME)], maximum=1,
        ),
        graph(
            Words("Preemptions", "Requests a second that lost their place for want of KV cache. Any that last: lower"
                  " max_num_seqs or max_model_len, or add replicas.", "EnginePreempts"),
            "ops", [Query(f"sum by ({REPLICA}) ({rate('vllm:num_preemptions_total', ENGINE)})",
                          REPLICA_NAME)],
        ),
    ]  # fmt: skip


def _engine() -> list[AnyPanel]:
    return [
        graph(
            Words("Memory", "Resident memory of the API server process on the host; not GPU memory."),
            "bytes", [Query(f"sum by ({REPLICA}) ({select('process_resident_memory_bytes', ENGINE)})",
                            REPLICA_NAME)],
        ),
        graph(
            Words("Age", "Seconds since the engine's process started. A fall to zero is a restart.",
                  "EngineRestartLoop"),
            "s", [Query(f"time() - max by ({REPLICA}) ({select('process_start_time_seconds', ENGINE)})",
                        REPLICA_NAME)],
        ),
        graph(
            Words("Steps", "Engine steps a second. Flat at zero while requests run: the engine is wedged, whatever its"
                  " health page says.", "EngineWedged"),
            "ops", [Query(f"sum by ({REPLICA}) ({rate('vllm:iteration_tokens_total_count', ENGINE)})", REPLICA_NAME)],
        ),
    ]  # fmt: skip
