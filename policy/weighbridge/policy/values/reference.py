"""Reference values: what the relying party expects to see, and what it leaves unchecked in so many words.

One strict JSON document, schema ``weighbridge/reference/v1``, is the relying party's own. What owners' signed sets say,
of models (:mod:`.owner_sets`) and of hosts (:mod:`.host_sets`), is put beside it, with the names of the baselines in
force (:mod:`.baselines`). All together are the values in force, schema ``weighbridge/reference-values/v1``; policies
read what they come to as ``data.reference`` (:meth:`Reference.data`).

Only the eight checks that evidence need not prove may be left unchecked, each by a written reason which then
stands in every decision. Weights, references, freshness and emulated platforms are not among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal, get_args

from weighbridge.policy.values.baselines import NamedBaseline
from weighbridge.policy.values.gpu_versions import VersionKind, is_version
from weighbridge.policy.values.host_sets import HostSet
from weighbridge.policy.values.owner_sets import OwnerSet, StatementValue
from weighbridge.proto import limits, strict
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["CHECKS", "IN_FORCE", "REASON_MIN", "SCHEMA", "Check", "GpuMinimum", "Reference"]

SCHEMA: Final = "weighbridge/reference/v1"
IN_FORCE: Final = "weighbridge/reference-values/v1"
# SEV-SNP's launch digest, and TDX's MRTD: SHA-384.
_TEE_MEASUREMENT_SIZE: Final = 48
_DEVICE: Final = re.compile(r"[^/]+/[^/]+/[^/]+")
REASON_MIN: Final = 10
"""Characters that a reason must have at least, blanks at its ends not counted."""

Check = Literal[
    "attester_code",
    "secure_boot",
    "host_binding",
    "boot_reference",
    "platform_tcb",
    "gpu_revocation",
    "load_binding",
    "telemetry_baseline",
]
CHECKS: Final[tuple[Check, ...]] = get_args(Check)


@dataclass(frozen=True, slots=True)
class GpuMinimum:
    """The oldest versions that are accepted on one architecture; ``None`` where any is, as far as it is known."""

    driver: str | None
    vbios: str | None


@dataclass(frozen=True, slots=True)
class Reference:
    """Reference values, parsed. Says nothing of who wrote them: a signature over them is another matter.

    Args:
        models: manifest digest (hex) to the name under which the relying party knows it.
        gpu_measurements: ``arch/driver/vbios`` to the accepted digests (hex) of the report's measurements.
        unchecked: check to the reason for leaving it unchecked.
        sets: what verified reference sets of models' owners say, sorted; see :meth:`with_sets`.
        hosts: what verified host sets say, sorted; see :meth:`with_hosts`.
        baselines: which verified baseline sets are in force, sorted; see :meth:`with_baselines`.
        tee_measurements: launch measurement (hex) of a confidential machine's first code, which runs its TPM, to the
            name under which the relying party knows it.
        gpu_minimum: architecture (``GH100``, ``LS_10``) to the oldest driver and VBIOS that are accepted.
    """

    models: Mapping[str, str]
    gpu_measurements: Mapping[str, tuple[str, ...]]
    unchecked: Mapping[Check, str]
    sets: tuple[OwnerSet, ...] = ()
    hosts: tuple[HostSet, ...] = ()
    tee_measurements: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    gpu_minimum: Mapping[str, GpuMinimum] = field(default_factory=lambda: MappingProxyType({}))
    baselines: tuple[NamedBaseline, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Reference:
        """Read the relying party's document; every member is required.

        Raises:
            MalformedEvidence: the bytes are not strict JSON of exactly this shape (``NOT_JSON``, ``DUPLICATE_KEY``,
                ``FIELD_MISSING``, ``FIELD_UNKNOWN``, ``FIELD_TYPE``, ``FIELD_RANGE``, ``NOT_HEX``,
                ``VERSION_UNSUPPORTED``, …).
        """
        return cls._own(strict.json_decode(data, what="reference"))

    @classmethod
    def recorded(cls, data: bytes) -> Reference:
        """Read values in force, as :meth:`to_json` wrote them: with what was taken from signed sets, or without.

        What they say of sets is the word of whoever recorded them. Never to be used on what a relying party is handed.

        Raises:
            MalformedEvidence: as :meth:`parse`.
        """
        root = _object(strict.json_decode(data, what="reference"), "reference")
        if root.get("schema") != IN_FORCE:
            return cls._own(root)
        # Values that were recorded before there were host sets, or baselines, have no such member.
        _members(root, {"schema", "reference", "sets"} | ({"hosts", "baselines"} & root.keys()), "reference")
        sets = [OwnerSet.read(item, where) for where, item in _listed(root, "sets")]
        hosts = [HostSet.read(item, where) for where, item in _listed(root, "hosts")]
        baselines = [NamedBaseline.read(item, where) for where, item in _listed(root, "baselines")]
        return cls._own(root["reference"]).with_sets(sets).with_hosts(hosts).with_baselines(baselines)

    @classmethod
    def _own(cls, value: strict.JsonValue) -> Reference:
        root = _object(value, "reference")
        if root.get("schema") != SCHEMA:
            raise MalformedEvidence(
                Code.VERSION_UNSUPPORTED, "reference has another schema", where="reference.schema", expected=SCHEMA
            )
        # Of no use where no confidential machine is expected, and then none is accepted; or where any version is.
        optional = {"tee_measurements", "gpu_minimum"} & root.keys()
        _members(root, {"schema", "models", "gpu_measurements", "unchecked"} | optional, "reference")
        return cls(
            models=MappingProxyType(_named(root["models"], "reference.models", size=limits.DIGEST_SIZE)),
            gpu_measurements=MappingProxyType(_measurements(root["gpu_measurements"])),
            unchecked=MappingProxyType(_unchecked(root["unchecked"])),
            tee_measurements=MappingProxyType(
                _named(root.get("tee_measurements", {}), "reference.tee_measurements", size=_TEE_MEASUREMENT_SIZE)
            ),
            gpu_minimum=MappingProxyType(_minimum(root.get("gpu_minimum", {}))),
        )

    def with_sets(self, sets: Iterable[OwnerSet]) -> Reference:
        """These values of the relying party with ``sets`` beside them, in place of any others."""
        return replace(self, sets=tuple(sorted(sets, key=lambda item: (item.owner, item.number, item.digest))))

    def with_hosts(self, hosts: Iterable[HostSet]) -> Reference:
        """These values of the relying party with ``hosts`` beside them, in place of any others."""
        return replace(
            self, hosts=tuple(sorted(hosts, key=lambda item: (item.owner, item.name, item.number, item.digest)))
        )

    def with_baselines(self, baselines: Iterable[NamedBaseline]) -> Reference:
        """These values of the relying party with ``baselines`` named beside them, in place of any others."""
        return replace(
            self,
            baselines=tuple(sorted(baselines, key=lambda item: (item.owner, item.name, item.number, item.digest))),
        )

    def to_json(self) -> bytes:
        """The canonical document: ``recorded`` of it gives an equal value, and ``parse`` where there are no sets."""
        own: strict.JsonObject = {
            "schema": SCHEMA,
            "models": {digest: {"name": name} for digest, name in self.models.items()},
            "gpu_measurements": {key: list(digests) for key, digests in self.gpu_measurements.items()},
            "unchecked": {str(check): reason for check, reason in self.unchecked.items()},
        }
        if self.tee_measurements:
            own["tee_measurements"] = {digest: {"name": name} for digest, name in self.tee_measurements.items()}
        if self.gpu_minimum:
            own["gpu_minimum"] = {
                chip: {"driver": item.driver, "vbios": item.vbios} for chip, item in self.gpu_minimum.items()
            }
        if not self.sets and not self.hosts and not self.baselines:
            return strict.json_encode(own)
        hosts = {"hosts": [item.document() for item in self.hosts]} if self.hosts else {}
        baselines = {"baselines": [item.document() for item in self.baselines]} if self.baselines else {}
        sets: list[strict.JsonValue] = [item.document() for item in self.sets]
        return strict.json_encode({"schema": IN_FORCE, "reference": own, "sets": sets, **hosts, **baselines})

    @property
    def digest(self) -> bytes:
        """``D("reference", canonical JSON)``: names these reference values in verdicts."""
        return D("reference", self.to_json())

    def data(self) -> strict.JsonObject:
        """What policies read as ``data.reference``: each accepted model with every member, ``null`` where not known.

        Owner, set and validity are those of the set that accepts it the longest; statements are those of all sets. A
        model that any set revokes is left out, whoever else accepts it. Validity is not applied: these values do not
        change with time, and :func:`weighbridge.verifier.acceptance.denials` does it before any policy is asked. Of
        host sets and baselines policies see which are in force; what the verifier found by them is in the input.
        """
        revoked = {model.manifest for item in self.sets for model in item.revoked}
        lasting = sorted(self.sets, key=lambda item: (item.not_after, item.owner, item.number))
        listed = {model.manifest: (item, model.name) for item in lasting for model in item.models}
        statements: dict[str, set[StatementValue]] = {}
        for model in (model for item in self.sets for model in item.models):
            statements.setdefault(model.manifest, set()).update(model.statements)
        # The relying party may accept a great many by name alone: nothing is asked of each of them.
        models: strict.JsonObject = {
            digest: {
                "name": name,
                "owner": None,
                "set": None,
                "not_before": None,
                "not_after": None,
                "statements": [],
            }
            for digest, name in self.models.items()
        }
        for digest, (chosen, name) in listed.items():
            models[digest] = {
                "name": self.models.get(digest, name),
                "owner": chosen.owner,
                "set": chosen.digest,
                "not_before": strict.time_encode(chosen.not_before),
                "not_after": strict.time_encode(chosen.not_after),
                "statements": [item.document() for item in sorted(statements.get(digest, ()), key=_by_digest)],
            }
        for digest in revoked:
            _ = models.pop(digest, None)
        return {
            "schema": SCHEMA,
            "models": models,
            "gpu_measurements": {key: list(digests) for key, digests in self.gpu_measurements.items()},
            "unchecked": {str(check): reason for check, reason in self.unchecked.items()},
            "hosts": [item.summary() for item in self.hosts],
            "baselines": [item.document() for item in self.baselines],
        }


def _by_digest(statement: StatementValue) -> tuple[str, str]:
    return statement.digest, statement.issuer


def _listed(root: strict.JsonObject, name: str) -> Iterable[tuple[str, strict.JsonValue]]:
    """The items of the list ``name``, each with its place; none where there is no such member."""
    listed = root.get(name, [])
    if not isinstance(listed, list):
        raise MalformedEvidence(Code.FIELD_TYPE, "expected a list", where=f"reference.{name}")
    return [(f"reference.{name}[{number}]", item) for number, item in enumerate(listed)]


def _named(value: strict.JsonValue, place: str, *, size: int) -> dict[str, str]:
    named: dict[str, str] = {}
    for digest, entry in _object(value, place).items():
        where = f"{place}.{digest[:64]}"
        _ = strict.hex_decode(digest, what=where, size=size)
        fields = _object(entry, where)
        _members(fields, {"name"}, where)
        named[digest] = _text(fields["name"], f"{where}.name")
    return named


def _measurements(value: strict.JsonValue) -> dict[str, tuple[str, ...]]:
    result: dict[str, tuple[str, ...]] = {}
    for key, entry in _object(value, "reference.gpu_measurements").items():
        where = f"reference.gpu_measurements.{key[:64]}"
        if not _DEVICE.fullmatch(_text(key, where)):
            raise MalformedEvidence(Code.FIELD_RANGE, "the key is not arch/driver/vbios", where=where)
        if not isinstance(entry, list) or not entry:
            raise MalformedEvidence(Code.FIELD_TYPE, "expected a list of at least one digest", where=where)
        digests = tuple(_text(item, where) for item in entry)
        for digest in digests:
            _ = strict.hex_decode(digest, what=where, size=limits.DIGEST_SIZE)
        result[key] = digests
    return result


def _minimum(value: strict.JsonValue) -> dict[str, GpuMinimum]:
    result: dict[str, GpuMinimum] = {}
    for chip, entry in _object(value, "reference.gpu_minimum").items():
        where = f"reference.gpu_minimum.{chip[:64]}"
        fields = _object(entry, where)
        _members(fields, {"driver", "vbios"}, where)
        result[_text(chip, where)] = GpuMinimum(
            _version(fields["driver"], "driver", where), _version(fields["vbios"], "vbios", where)
        )
    return result


def _version(value: strict.JsonValue, kind: VersionKind, where: str) -> str | None:
    if value is None:
        return None
    version = _text(value, f"{where}.{kind}")
    if not is_version(version, kind):
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "not a version",
            where=f"{where}.{kind}",
            expected="such as 550.144.03" if kind == "driver" else "such as 96.00.9F.00.01",
            got=version,
        )
    return version


def _unchecked(value: strict.JsonValue) -> dict[Check, str]:
    result: dict[Check, str] = {}
    entries = _object(value, "reference.unchecked")
    for check in CHECKS:
        if check in entries:
            where = f"reference.unchecked.{check}"
            reason = _text(entries[check], where)
            if len(reason.strip()) < REASON_MIN:
                raise MalformedEvidence(
                    Code.FIELD_RANGE,
                    "the reason is too short to be one",
                    where=where,
                    expected=f">= {REASON_MIN} characters",
                    hint="write why this check may be left out here; it is printed with every verdict",
                )
            result[check] = reason
    unknown = sorted(set(entries) - set(CHECKS))
    if unknown:
        raise MalformedEvidence(
            Code.FIELD_UNKNOWN,
            "this check cannot be left out",
            where=f"reference.unchecked.{unknown[0][:64]}",
            expected=", ".join(CHECKS),
        )
    return result


def _object(value: strict.JsonValue, where: str) -> strict.JsonObject:
    if not isinstance(value, dict):
        raise MalformedEvidence(Code.FIELD_TYPE, "expected an object", where=where)
    return value


def _members(value: strict.JsonObject, names: set[str], where: str) -> None:
    for name in sorted(names - value.keys()):
        raise MalformedEvidence(Code.FIELD_MISSING, f"{name} is missing", where=where)
    for name in sorted(value.keys() - names):
        raise MalformedEvidence(Code.FIELD_UNKNOWN, f"{name[:64]} is not a member", where=where)


def _text(value: strict.JsonValue, where: str) -> str:
    if not isinstance(value, str):
        raise MalformedEvidence(Code.FIELD_TYPE, "expected text", where=where)
    if not 0 < len(value) <= limits.NAME_MAX:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "the text has a wrong length", where=where, expected=f"1 to {limits.NAME_MAX}"
        )
    try:
        _ = value.encode()
    except UnicodeEncodeError as error:
        raise MalformedEvidence(Code.NOT_UTF8, "the text holds a lone surrogate", where=where) from error
    return value
