"""The vectors of docs/protocol.md: what each consists of, how it is written down, how it is read back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self

import protocol_example as example
import protocol_judgement as judgement
import protocol_owners as owners

from weighbridge.proto import binding, cbor, cose, merkle, note, receipt, strict, tlog
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.spdm.evidence import binding_rows
from weighbridge.proto.v1 import attestation_pb2

if TYPE_CHECKING:
    from protocol_judgement import Judgement

    from weighbridge.proto.spot import SpotExpectation, SpotPool

__all__ = ["Item", "Vector", "render", "vectors"]

Form = Literal["hex", "text", "line"]
_WIDTH: Final = 96
_LONG: Final = 1024
_HEAD: Final = re.compile(r"(?P<name>\S.*): (?P<form>hex|text|line), (?P<size>[0-9]+) bytes?")


@dataclass(frozen=True, slots=True)
class Item:
    """Some bytes with a name: ``text`` is lines, each ended by a newline; ``line`` has none and is cut in pieces."""

    name: str
    data: bytes
    form: Form = "hex"


@dataclass(frozen=True, slots=True)
class Vector:
    """A named vector: its items in order. The first is the structure itself."""

    name: str
    items: tuple[Item, ...]

    def __getitem__(self, name: str) -> bytes:
        """The bytes of the item ``name``."""
        return next(item.data for item in self.items if item.name == name)

    @property
    def first(self) -> bytes:
        """The bytes of the structure itself."""
        return self.items[0].data

    @classmethod
    def read(cls, name: str, body: str) -> Self:
        """A vector as it stands in the document.

        Raises:
            ValueError: it is not written as :func:`render` writes.
        """
        items: list[Item] = []
        lines: list[str] = []
        for line in [*_fenced(body), "end: hex, 0 bytes"]:
            head = _HEAD.fullmatch(line)
            if head is None:
                lines.append(line)
                continue
            if items:
                items[-1] = _read(items[-1], lines)
            lines = []
            items.append(Item(head["name"], head["size"].encode(), head["form"]))  # type: ignore[arg-type] # by the pattern
        return cls(name, tuple(items[:-1]))


def _fenced(body: str) -> list[str]:
    return [line for block in re.findall(r"```text\n(.*?)```\n", body, re.DOTALL) for line in block.splitlines()]


def _read(item: Item, lines: list[str]) -> Item:
    if item.form == "text":
        data = "".join(f"{line[2:]}\n" for line in lines).encode()
    else:
        joined = "".join(line[2:] for line in lines)
        data = bytes.fromhex(joined) if item.form == "hex" else joined.encode()
    if str(len(data)).encode() != item.data:
        raise ValueError(f"{item.name} has {len(data)} bytes, not {item.data.decode()}")
    return Item(item.name, data, item.form)


def render(vector: Vector) -> str:
    """The vector as Markdown; what is long can be folded away."""
    block = "```text\n" + "".join(_item(item) for item in vector.items) + "```\n"
    size = sum(len(item.data) for item in vector.items)
    if size <= _LONG:
        return block
    summary = f"vector <code>{vector.name}</code>, {len(vector.first)} bytes"
    return f"<details><summary>{summary}</summary>\n\n{block}\n</details>\n"


def _item(item: Item) -> str:
    size = len(item.data)
    head = f"{item.name}: {item.form}, {size} byte{'' if size == 1 else 's'}\n"
    if item.form == "text":
        return head + "".join(f"  {line}".rstrip() + "\n" for line in item.data.decode().splitlines())
    text = item.data.hex() if item.form == "hex" else item.data.decode()
    return head + "".join(f"  {piece}\n" for piece in _pieces(text))


def _pieces(text: str) -> list[str]:
    """``text`` cut to the width, and never beside a space: an editor may drop one at the end of a line."""
    pieces: list[str] = []
    while text:
        cut = min(_WIDTH, len(text))
        while cut < len(text) and " " in text[cut - 1 : cut + 1]:
            cut -= 1
        pieces.append(text[:cut])
        text = text[cut:]
    return pieces


def vectors(made: Judgement) -> tuple[Vector, ...]:
    """All vectors, in the order of the document."""
    return (*_links(made), *_enrolment(made), *_window(made), *_ledger(made), *_results(made))


def _links(made: Judgement) -> tuple[Vector, ...]:
    enrolment, window = made.enrolment, made.window
    asked, terms = enrolment.challenge, enrolment.terms.terms
    header = window.header.encode()
    parts: list[cbor.CborValue] = [b"\x01\x02", None, 3, ["x", [b""]]]
    rows = binding_rows(window.gpus)
    return (
        Vector(
            "digest",
            (
                Item("encoding", cbor.encode(["weighbridge/v1/window", *parts])),
                Item("D(\"window\", h'0102', null, 3, [\"x\", [h'']])", D("window", *parts)),
            ),
        ),
        Vector(
            "challenge",
            (
                Item("ledger_root", enrolment.root),
                Item("session", asked.session),
                Item("random", example.fixed("enrolment challenge")),
                Item("enrolment challenge", asked.challenge),
                Item("ledger_root at window 0", window.root),
                Item("random at window 0", example.fixed("challenge 0")),
                Item("challenge_0", window.header.challenge),
            ),
        ),
        Vector(
            "links",
            (
                Item("ak", terms.ak),
                Item("genesis", binding.genesis(terms.ak)),
                Item("cnf", terms.cnf),
                Item("peer", terms.peer),
                Item("qualifyingData of the enrolment", enrolment.qualifying_data),
                Item("H_0", binding.window_digest(header)),
                Item("gpu nonce of window 0", binding.gpu_nonce(window.digest)),
                Item("encoding under G_0", cbor.encode(["weighbridge/v1/gpus", rows])),
                Item("G_0", D("gpus", [list[cbor.CborValue](row) for row in rows])),
                Item("G of a window without GPU reports", D("gpus", None)),
                Item("qualifyingData_0", window.qualifying_data),
                Item("prev of window 1", window.next_prev),
            ),
        ),
    )


def _enrolment(made: Judgement) -> tuple[Vector, ...]:
    enrolment = made.enrolment
    signed = enrolment.terms
    message = cose.parse(signed.raw, typ="application/vnd.weighbridge.terms+cose", limit=1 << 16, what="terms")
    return (
        Vector("opening", (Item("opening", enrolment.opening.encode()),)),
        Vector(
            "enrolment-challenge",
            (Item("challenge", enrolment.challenge.encode()), Item("secret in the credential", enrolment.secret)),
        ),
        Vector(
            "telemetry-key",
            (
                Item("TPMT_PUBLIC", enrolment.telemetry_key),
                Item("TPMS_ATTEST of its certification", enrolment.proof.certify_attest),
                Item("TPMT_SIGNATURE", enrolment.proof.certify_signature),
            ),
        ),
        Vector("enrolment-proof", (Item("proof", enrolment.proof.encode()),)),
        Vector("terms", (Item("terms", signed.terms.encode()), Item("terms digest", signed.digest))),
        Vector(
            "signed-terms",
            (
                Item("signed terms", signed.raw),
                Item("Sig_structure", cose.to_be_signed(message.protected, message.payload)),
                Item("verifier's SubjectPublicKeyInfo", cose.spki(example.VERIFIER_KEY.public_key())),
            ),
        ),
        Vector("requirements", (Item("requirements", example.REQUIREMENTS.encode(), "line"),)),
    )


def _window(made: Judgement) -> tuple[Vector, ...]:
    enrolment, window = made.enrolment, made.window
    header, evidence = window.header.encode(), window.evidence
    first, second = enrolment.records
    return (
        Vector("header", (Item("header", header), Item('H_0 = D("window", header)', window.digest))),
        Vector("signed-header", (Item("signed_0", evidence.window),)),
        Vector(
            "evidence",
            (Item("evidence", evidence.encode()), Item("SHA-256", sha256(evidence.encode()))),
        ),
        Vector("quote", (Item("quote", evidence.quote),)),
        Vector(
            "gpus",
            (
                Item("gpus", evidence.gpus or b""),
                Item("identity", window.gpus[0].claimed_identity),
                Item("SHA-256 of the report", sha256(window.gpus[0].report)),
                Item("SHA-256 of the chain", window.gpus[0].chain_digest),
            ),
        ),
        Vector(
            "telemetry",
            (
                Item("telemetry", evidence.telemetry),
                Item("content", window.telemetry.content()),
                Item("SHA-256", window.header.telemetry),
            ),
        ),
        Vector(
            "log",
            (
                Item("log", enrolment.proof.log),
                Item("record 0", first.raw),
                Item("record 1", second.raw),
                Item("head after 0 records", bytes(32)),
                Item("head after 2 records", window.header.log_head),
                Item("PCR 15, SHA-256 bank, after 2 records", window.quote.pcr_values[-1]),
            ),
        ),
        Vector(
            "manifest",
            (
                Item("config.json", example.CONFIG),
                Item("model.safetensors", example.WEIGHTS),
                Item("table of model.safetensors", enrolment.manifest.files[1].table or b""),
                Item('D("parts", table)', enrolment.manifest.files[1].digest),
                Item("manifest", enrolment.manifest.raw),
                Item('D("manifest", manifest)', enrolment.manifest.digest),
                Item("manifests", enrolment.proof.manifests),
            ),
        ),
        Vector("manifest-json", (Item("manifest.json", enrolment.manifest.to_json(), "text"),)),
        Vector(
            "work",
            (
                Item("work", cbor.encode(window.header.work.to_cbor())),
                Item("salt", example.fixed("salt")),
                Item("request", b"request"),
                Item("response", b"response"),
                Item("commitment", window.commitment),
                Item("leaf hash", merkle.leaf_hash(window.commitment)),
                Item("root of a window without requests", merkle.EMPTY_ROOT),
            ),
        ),
        *_spot(window.spot, example.make_pool(enrolment.manifest)),
    )


def _spot(spot: SpotExpectation, pool: SpotPool) -> tuple[Vector, ...]:
    asked = spot.challenge
    rows: list[cbor.CborValue] = [[part.path, part.offset, part.length] for part in asked.ranges]
    pieces = [example.WEIGHTS[part.offset :][: part.length] for part in asked.ranges]
    return (
        Vector(
            "spot",
            (
                Item("spot challenge", asked.encode()),
                Item(
                    "encoding before the ranges", cbor.encode(["weighbridge/v1/spot", asked.manifest, asked.id, rows])
                ),
                Item("first range", pieces[0]),
                Item("second range", pieces[1]),
                Item("mac", spot.mac),
            ),
        ),
        Vector("spot-pool", (Item("pool", pool.to_json(), "line"),)),
    )


def _reference_set(made: owners.Ownership) -> Vector:
    return Vector(
        "reference-set",
        (
            Item("reference set", made.content.encode()),
            Item("signed reference set", made.signed),
            Item("statement", made.statement, "line"),
            Item("values in force", made.values.to_json(), "line"),
            Item("digest of the values", made.values.digest),
        ),
    )


def _policy_bundle(made: owners.Authorship) -> Vector:
    return Vector(
        "policy-bundle",
        (
            Item("policy bundle", made.content.encode()),
            Item("signed policy bundle", made.signed),
            Item("SHA-256", sha256(made.signed)),
        ),
    )


def _ledger(made: Judgement) -> tuple[Vector, ...]:
    hashes = [merkle.leaf_hash(entry) for entry in made.entries]
    return (
        Vector("record", (Item("record 1", made.records[1].encode()), Item("SHA-256", made.leaves[1].record))),
        Vector("leaf", (Item("leaf 1", made.entries[1]), Item("leaf hash", hashes[1]))),
        Vector("verdict", (Item("verdict", made.verdict.encode(), "line"),)),
        Vector(
            "tiles",
            (
                Item("tile/entries/000.p/2", tlog.encode_bundle(made.entries)),
                Item("tile/0/000.p/2", tlog.encode_tile(hashes)),
                Item("root", merkle.root(hashes)),
            ),
        ),
        Vector(
            "checkpoint",
            (
                Item("checkpoint", made.checkpoint, "text"),
                Item("verifier key", f"{example.NOTE_KEY.vkey}\n".encode(), "text"),
                Item("key id", note.NoteKey(example.ORIGIN, example.NOTE_KEY.public).key_id),
            ),
        ),
        Vector("ledger-proof", (Item("1.tlog-proof", made.proof.encode(), "text"),)),
        _receipts(made, hashes),
    )


def _receipts(made: Judgement, hashes: list[bytes]) -> Vector:
    first, both = (
        tlog.open_checkpoint(signed, example.NOTE_KEY, origin=example.ORIGIN)
        for signed in (example.checkpoint(made.entries[:1]), made.checkpoint)
    )
    path = merkle.consistency_proof(1, 2, merkle.nodes_of(hashes))
    sign = example.LEDGER_KEY.sign
    entry = receipt.sign_inclusion(both, hashes[1], receipt.Inclusion(1, made.proof.path), signer=sign)
    growth = receipt.sign_consistency(first, both, path, signer=sign)
    return Vector("ledger-receipt", (Item("of entry 1", entry), Item("of growth from 1 to 2", growth)))


def _results(made: Judgement) -> tuple[Vector, ...]:
    header, payload, _ = made.token.split(".")
    resume = attestation_pb2.AttestRequest(resume=attestation_pb2.Resume(session=made.enrolment.challenge.session))
    resumed = attestation_pb2.AttestResponse(
        resumed=attestation_pb2.Resumed(next_seq=1, challenge=made.window.header.challenge)
    )
    return (
        Vector(
            "token",
            (
                Item("token", made.token.encode(), "line"),
                Item("header", strict.base64url_decode(header, what="header"), "line"),
                Item("payload", strict.base64url_decode(payload, what="payload"), "line"),
            ),
        ),
        Vector(
            "reference", (Item("reference", made.reference.to_json(), "line"), Item("digest", made.reference.digest))
        ),
        _reference_set(owners.own(made.enrolment.manifest)),
        Vector(
            "policy",
            (
                Item("example.rego", judgement.MODULES[0][1], "text"),
                Item("digest", judgement.policy_digest()),
            ),
        ),
        _policy_bundle(owners.write(judgement.MODULES, made.enrolment.terms.terms.tenant)),
        Vector(
            "bundle",
            (
                Item("bundle", made.bundle.encode()),
                Item("content", made.bundle.content()),
                Item("SHA-256 of the content", sha256(made.bundle.content())),
            ),
        ),
        Vector(
            "envelope",
            (
                Item("AttestRequest{resume{session}}", resume.SerializeToString(deterministic=True)),
                Item("AttestResponse{resumed{next_seq: 1, challenge}}", resumed.SerializeToString(deterministic=True)),
            ),
        ),
    )
