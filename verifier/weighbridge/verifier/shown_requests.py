"""Shows single requests of a window: from the list of its commitments, which whoever served them kept.

A header has the root over the commitments in the order in which requests ended (:mod:`weighbridge.proto.workload`), and
nobody but their server has the list, and the salts. The list is strict JSON, schema ``weighbridge/requests/v1``:

.. code-block:: json

    {"schema": "weighbridge/requests/v1", "windows": [{"seq": 4, "commitments": ["hex", "hex"],
      "shown": [{"index": 1, "salt": "hex", "request": "hex of SHA-256", "response": "hex of SHA-256"}]}]}

Of the list itself nothing goes into a bundle but the hashes that lead from the shown requests to the root.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self, cast

from weighbridge.proto import cbor, limits, merkle, strict
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.window import Evidence, Header
from weighbridge.verifier.bundle_format import ShownRequest
from weighbridge.verifier.disclosed import check_requests
from weighbridge.verifier.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.verifier.bundle_format import Bundle

__all__ = ["ClaimedWork", "show"]

_SCHEMA: Final = "weighbridge/requests/v1"
_WINDOWS_MAX: Final = 10_000
_COMMITMENTS_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class ClaimedWork:
    """The commitments of one window in their order, and the requests to be shown, without their proofs."""

    seq: int
    commitments: tuple[bytes, ...]
    shown: tuple[ShownRequest, ...]

    @classmethod
    def parse_all(cls, data: bytes) -> tuple[Self, ...]:
        """The windows in a document.

        Raises:
            MalformedEvidence: it is none.
        """
        document = _reader(strict.json_decode(data, what="requests"), "requests")
        schema = document.text("schema")
        if schema != _SCHEMA:
            raise MalformedEvidence(
                Code.VERSION_UNSUPPORTED, "unknown schema", where="requests.schema", expected=_SCHEMA, got=schema
            )
        windows = document.array("windows", limit=_WINDOWS_MAX)
        document.end()
        found = tuple(cls._parse(item, f"requests.windows[{number}]") for number, item in enumerate(windows))
        seqs = [work.seq for work in found]
        if seqs != sorted(set(seqs)):
            raise MalformedEvidence(Code.FIELD_RANGE, "windows are not ascending, each once", where="requests.windows")
        return found

    @classmethod
    def _parse(cls, value: cbor.CborValue, where: str) -> Self:
        fields = cbor.read_map(value, where=where)
        seq = fields.uint("seq", limit=2**53)
        commitments = tuple(
            strict.hex_decode(_text(item, where), what="commitment", size=limits.DIGEST_SIZE)
            for item in fields.array("commitments", limit=_COMMITMENTS_MAX)
        )
        listed = fields.array("shown", limit=limits.BUNDLE_REQUESTS_MAX)
        fields.end()
        shown = tuple(_shown(item, seq, f"{where}.shown[{number}]") for number, item in enumerate(listed))
        places = [item.index for item in shown]
        if places != sorted(set(places)) or places[-1:] >= [len(commitments)]:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "places are not ascending ones of the list, each once", where=f"{where}.shown"
            )
        return cls(seq, commitments, shown)


def show(bundle: Bundle, works: Sequence[ClaimedWork]) -> Bundle:
    """``bundle`` with the requests of ``works``, once they are those that its windows count.

    Raises:
        MalformedEvidence: ``BUNDLE_REQUEST``: a window is not shown, or counts other requests.
    """
    if not works:
        return bundle
    headers = dict(_headers(bundle))
    requests: list[ShownRequest] = []
    for work in works:
        nodes = merkle.nodes_of([merkle.leaf_hash(commitment) for commitment in work.commitments])
        size = len(work.commitments)
        requests += [replace(item, proof=merkle.inclusion_proof(item.index, size, nodes)) for item in work.shown]
    check_requests(requests, headers)
    return replace(bundle, requests=tuple(requests))


def _headers(bundle: Bundle) -> list[tuple[int, Header]]:
    """The headers of the windows that are shown. Their signatures are not checked: what is recorded was authentic."""
    found: list[tuple[int, Header]] = []
    for entry in bundle.entries:
        record = Record.parse(entry.record)
        if record.kind == "window" and entry.evidence is not None:
            header = Header.parse(Evidence.parse(entry.evidence).signed_header().payload)
            found.append((header.seq, header))
    return found


def _shown(value: cbor.CborValue, seq: int, where: str) -> ShownRequest:
    fields = cbor.read_map(value, where=where)
    index = fields.uint("index", limit=_COMMITMENTS_MAX)
    salt, request, response = (
        strict.hex_decode(fields.text(name), what=f"{where}.{name}", size=limits.DIGEST_SIZE)
        for name in ("salt", "request", "response")
    )
    fields.end()
    return ShownRequest(seq=seq, index=index, proof=(), salt=salt, request=request, response=response)


def _text(value: cbor.CborValue, where: str) -> str:
    if not isinstance(value, str):
        raise MalformedEvidence(Code.FIELD_TYPE, "a commitment is text", where=where)
    return value


def _reader(value: strict.JsonValue, where: str) -> cbor.Reader:
    # The reader takes what JSON has; a fraction is none of the types that it gives out.
    return cbor.read_map(cast("cbor.CborValue", value), where=where)
