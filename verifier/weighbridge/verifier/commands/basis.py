"""By what sessions are judged, read from the files that the configuration names: for ``serve``, and for whoever checks.

Nothing is loaded into an engine here, and nothing is compared with what a verifier's state has seen.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence, WeighbridgeError
from weighbridge.verifier.bench import keys_of
from weighbridge.verifier.commands.foreign import with_foreign
from weighbridge.verifier.commands.outcome import (
    load_anchors,
    load_policy,
    read,
    read_manifest,
    read_reference,
    taken_for,
)
from weighbridge.verifier.peers import authorities
from weighbridge.verifier.requirements import Requirements

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cryptography import x509

    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.policy.values.reference import Reference
    from weighbridge.proto.manifest import Manifest
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.settings.model import Judging, Settings

__all__ = [
    "Basis",
    "admitting_for_all",
    "lacking",
    "needed",
    "read_authorities",
    "read_basis",
    "read_policy",
    "read_requirements",
    "require_attesters",
    "require_own",
]

_T = TypeVar("_T")


@final
@dataclass(frozen=True, slots=True)
class Basis:
    """What one tenant's sessions are judged by, before any signed set and bundle.

    Attributes:
        judging: the settings that name it all.
        requirements: of the tenant; they name it.
        policy: the one that is given outright; ``None``: bundles alone.
        reference: the reference values.
        manifests: declared ones, by digest.
        anchors: who is believed.
        attesters: the authorities of its attesters' certificates; ``None``: it has none of its own.
    """

    judging: Judging
    requirements: Requirements
    policy: PolicySet | None
    reference: Reference
    manifests: Mapping[bytes, Manifest]
    anchors: TrustAnchors
    attesters: tuple[x509.Certificate, ...] | None


def read_basis(judging: Judging) -> Basis:
    """All of it.

    Raises:
        WeighbridgeError: a file cannot be read, or is not what it is taken for.
        ValueError: something is missing that :func:`lacking` names.
    """
    requirements = read_requirements(needed(judging.requirements))
    reference = read_reference(str(needed(judging.reference)))
    return Basis(
        judging=judging,
        requirements=requirements,
        policy=read_policy(judging, reference),
        reference=reference,
        manifests={manifest.digest: manifest for manifest in map(read_manifest, judging.manifests)},
        anchors=load_anchors(judging.anchors),
        attesters=None if judging.attester_ca is None else read_authorities(judging.attester_ca),
    )


def read_authorities(path: Path) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM file of authorities.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: ``CERT_MALFORMED``, ``TOO_LARGE``.
    """
    return authorities(read(path, limit=limits.JSON_MAX), where=str(path))


def read_requirements(path: Path) -> Requirements:
    """The requirements in a file.

    Raises:
        WeighbridgeError: as :meth:`.Requirements.parse`, naming the file; it cannot be read.
    """
    data = read(path, limit=limits.TERMS_MAX)
    with taken_for(path, what="requirements", hint="docs/protocol.md §4.5 says what is in them"):
        return Requirements.parse(data)


def read_policy(judging: Judging, reference: Reference) -> PolicySet | None:
    """The policy that is given outright, with others' beside it. The checker has not seen it.

    Raises:
        WeighbridgeError: there is no such policy, or a file of it cannot be read.
    """
    if not judging.policy:
        return None
    values = None if judging.foreign_values is None else str(judging.foreign_values)
    foreign = argparse.Namespace(
        foreign=list(judging.foreign), foreign_v0=list(judging.foreign_v0), foreign_values=values
    )
    return with_foreign(load_policy(judging.policy, reference), foreign)


def lacking(settings: Settings) -> tuple[MalformedEvidence, ...]:
    """What cannot be done without, and is not said."""
    found: list[MalformedEvidence] = []
    if settings.serve.state is None:
        found.append(_absent("serve.state", "no STATE: the verifier's directory"))
    for number, judging in enumerate(settings.judged()):
        place = f"tenants.{number}" if settings.tenants else "judging"
        if judging.requirements is None:
            found.append(_absent(f"{place}.requirements", "no --requirements: what is demanded of every session"))
        if judging.reference is None:
            found.append(_absent(f"{place}.reference", "no --reference: reference values"))
        if not judging.policy and not judging.policy_bundles:
            found.append(_absent(f"{place}.policy", "nothing to judge by: --policy or --policy-bundle"))
        if (judging.foreign or judging.foreign_v0 or judging.foreign_values is not None) and not judging.policy:
            found.append(_absent(f"{place}.policy", "--foreign needs --policy: a bundle has its own"))
    if settings.relying_parties.ca is not None and settings.relying_parties.file is None:
        found.append(_absent("relying_parties.file", "--relying-party-ca needs --relying-parties: nobody is one yet"))
    if settings.relying_parties.listen is not None and settings.relying_parties.file is None:
        found.append(_absent("relying_parties.file", "nobody is a relying party yet, who could be served there"))
    return tuple(found)


def admitting_for_all(settings: Settings) -> frozenset[bytes]:
    """The keys of STATE's own authorities, whose hosts attest for every tenant without an ``attester_ca``.

    None where STATE says none that can be read: whoever opens it refuses it.
    """
    state = settings.serve.state
    try:
        return frozenset() if state is None else keys_of(read_authorities(state / "tls" / "ca.pem"))
    except WeighbridgeError:
        return frozenset()


def require_own(found: frozenset[bytes], *, all_: frozenset[bytes], others: frozenset[bytes], where: str) -> None:
    """Require that a tenant's authorities admit hosts for it alone.

    Args:
        found: their keys.
        all_: as :func:`admitting_for_all`.
        others: those of other tenants.
        where: the setting.

    Raises:
        MalformedEvidence: ``DUPLICATE_KEY``.
    """
    if found & all_:
        raise MalformedEvidence(
            Code.DUPLICATE_KEY,
            "STATE's own authority, whose hosts attest for every tenant that names none",
            where=where,
            hint="make an authority for this tenant's hosts alone, or leave the setting out",
        )
    if found & others:
        raise _shared_authority(where)


def require_attesters(judging: Judging, settings: Settings, *, where: str) -> None:
    """Require that it is said whose hosts attest for a tenant, where there are others.

    Raises:
        MalformedEvidence: ``FIELD_MISSING``.
    """
    if len(settings.judged()) > 1 and judging.attester_ca is None and not judging.any_admitted_host:
        raise MalformedEvidence(
            Code.FIELD_MISSING,
            "any host that STATE's authority admitted could attest for this tenant, another tenant's too",
            where=where,
            hint="name the authority of its hosts, or say any_admitted_host = true if all hosts are one owner's",
        )


def _shared_authority(where: str) -> MalformedEvidence:
    """The refusal of an authority that would admit the hosts of two tenants, each for the other."""
    return MalformedEvidence(
        Code.DUPLICATE_KEY,
        "an authority of another tenant's hosts too",
        where=where,
        hint="give each of [[tenants]] an attester_ca of its own; [judging] has none",
    )


def needed(value: _T | None) -> _T:
    """A value without which nothing begins.

    Raises:
        ValueError: it is not said: :func:`lacking` was not asked.
    """
    if value is None:
        raise ValueError("what is needed is not said")
    return value


def _absent(where: str, message: str) -> MalformedEvidence:
    return MalformedEvidence(Code.FIELD_MISSING, message, where=where, hint="`weighbridge config keys` lists all keys")
