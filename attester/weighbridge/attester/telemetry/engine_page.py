r"""What an inference server says of its work on its Prometheus page, as integers.

The page is another process's: bounded, and of its lines only those that are wanted are parsed at all. Counters are
summed over the page's series (models, engines, reasons to finish); copies of one count by the ranks of a parallel
engine are taken once. Names: vLLM (docs.vllm.ai, "Metrics"), SGLang (docs.sglang.io, "Production Metrics"),
TensorRT-LLM (its ``tensorrt_llm/metrics/collector.py``), Text Generation Inference (huggingface.co/docs, "Metrics").

>>> read_page(b'vllm:generation_tokens_total{model_name="m"} 1.5e+03\n').values["tokens_out"]
1500
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client.parser import text_string_to_metric_families

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.telemetry import UNITS, VALUE_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client.samples import Sample

__all__ = ["CHANNELS", "COUNTERS", "PAGE_MAX", "Page", "read_page"]

# vLLM's is 100 to 200 KiB.
PAGE_MAX: Final = 1024 * 1024
CHANNELS: Final = (
    "tokens_in",
    "tokens_out",
    "requests",
    "requests_running",
    "requests_waiting",
    "prefill_time",
    "decode_time",
)
COUNTERS: Final = frozenset({"tokens_in", "tokens_out", "requests", "prefill_time", "decode_time"})

_SERIES: Final[Mapping[str, str]] = {
    "vllm:prompt_tokens_total": "tokens_in",
    "vllm:generation_tokens_total": "tokens_out",
    "vllm:request_success_total": "requests",
    "vllm:num_requests_running": "requests_running",
    "vllm:num_requests_waiting": "requests_waiting",
    "vllm:request_prefill_time_seconds_sum": "prefill_time",
    "vllm:request_decode_time_seconds_sum": "decode_time",
    # No times that are summed over requests without their time in the queue.
    "sglang:prompt_tokens_total": "tokens_in",
    "sglang:generation_tokens_total": "tokens_out",
    "sglang:num_requests_total": "requests",
    "sglang:num_running_reqs": "requests_running",
    "sglang:num_queue_reqs": "requests_waiting",
    "trtllm_prompt_tokens_total": "tokens_in",
    "trtllm_generation_tokens_total": "tokens_out",
    "trtllm_request_success_total": "requests",
    "trtllm_num_requests_running": "requests_running",
    "trtllm_num_requests_waiting": "requests_waiting",
    "trtllm_request_prefill_time_seconds_sum": "prefill_time",
    "trtllm_request_decode_time_seconds_sum": "decode_time",
    # Its times are of batches, not of requests.
    "tgi_request_input_length_sum": "tokens_in",
    "tgi_request_generated_tokens_sum": "tokens_out",
    "tgi_request_success": "requests",
    "tgi_batch_current_size": "requests_running",
    "tgi_queue_size": "requests_waiting",
}
# Of any server that uses Prometheus's own library for Python: changes when it is started anew.
_STARTED: Final = "process_start_time_seconds"
_WANTED: Final = re.compile(rf"^(?:{'|'.join((*_SERIES, _STARTED))})[{{ \t][^\n]*$", re.MULTILINE)
# Ranks of a parallel engine that count the same tokens: the first one's are taken.
_COPIES: Final = frozenset({"tp_rank", "pp_rank", "moe_ep_rank"})
# Of lines that are wanted. The parser's time grows with the square of a line's length.
_LINE_MAX: Final = 1024
_LINES_SIZE_MAX: Final = 64 * 1024
_NS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Page:
    """What one page said.

    Attributes:
        values: by channel, in its unit; a channel that is not on the page is not here.
        senseless: channels of which the page says something that is no count: negative, not finite, beyond all bounds.
        started: when the server says that it was started, or ``None``.
    """

    values: Mapping[str, int]
    senseless: frozenset[str]
    started: float | None


def read_page(data: bytes) -> Page:
    """Read a page.

    Raises:
        EnvironmentFault: ``TELEMETRY_SOURCE``: it is too large, no Prometheus text, or of no server that is known.
    """
    if len(data) > PAGE_MAX:
        raise _fault(f"the page is larger than {PAGE_MAX} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _fault("the page is not UTF-8") from error
    if not text.endswith("\n"):
        # Every line ends so, or some of it is not there: of a number, for one.
        raise _fault("the page is not whole")
    lines: list[str] = _WANTED.findall(text)
    if sum(map(len, lines)) > _LINES_SIZE_MAX or any(len(line) > _LINE_MAX for line in lines):
        raise _fault("the page has too many series, or too long ones")
    sums: dict[str, int] = {}
    senseless: set[str] = set()
    started: float | None = None
    for sample in _samples(lines):
        if sample.name == _STARTED:
            started = sample.value if abs(sample.value) <= VALUE_MAX else None
            continue
        channel = _SERIES.get(sample.name)
        if channel is None or any(sample.labels.get(label, "0") != "0" for label in _COPIES):
            continue
        value = _whole(sample.value, _NS if UNITS[channel] == "ns" else 1)
        total = VALUE_MAX + 1 if value is None else sums.get(channel, 0) + value
        if total > VALUE_MAX:
            senseless.add(channel)
        else:
            sums[channel] = total
    if not sums and not senseless:
        raise _fault("the page has no counters of an inference server")
    return Page({name: sums[name] for name in sums if name not in senseless}, frozenset(senseless), started)


def _samples(lines: list[str]) -> list[Sample]:
    try:
        return [
            sample for family in text_string_to_metric_families("\n".join(lines) + "\n") for sample in family.samples
        ]
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        # What its parser raises for text that is none.
        raise _fault("the page is no Prometheus text") from error


def _whole(value: float, scale: int) -> int | None:
    # Not so for what is not a number.
    return round(value * scale) if 0 <= value <= VALUE_MAX // scale else None


def _fault(reason: str) -> EnvironmentFault:
    return EnvironmentFault(Code.TELEMETRY_SOURCE, reason, where="--telemetry engine")
