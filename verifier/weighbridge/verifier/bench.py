"""Whose sessions are judged by what: one bench for each tenant, and no tenant by another's.

A tenant has requirements, anchors, an appraiser (policy, reference values, collateral, manifests) as these change, and
a memory of chains that were good under these anchors. All tenants share the verifier's keys, ledger and store; what
fails sticks to keys and devices, whosever session it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic
from weighbridge.verifier.certs import spki_der
from weighbridge.verifier.gpu.chain import ChainCache
from weighbridge.verifier.peers import issued

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from cryptography import x509

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.answers import Renewal
    from weighbridge.verifier.appraisal import Appraiser
    from weighbridge.verifier.requirements import Requirements

__all__ = ["Bench", "Benches", "keys_of"]


def keys_of(authorities: Iterable[x509.Certificate]) -> frozenset[bytes]:
    """The authorities' keys (SubjectPublicKeyInfo): one that has two certificates is still one authority."""
    return frozenset(map(spki_der, authorities))


@final
class Bench:
    """By what one tenant's sessions are judged. One thread uses it.

    Attributes:
        requirements: what is demanded of them.
        anchors: who is believed.
        chains: certificate chains that were verified by these anchors.
        attesters: the authorities whose certificates alone attest for the tenant, and for no other; ``None``: it has
            none of its own.
        appraiser: what judges them now.
    """

    __slots__ = ("_renewal", "anchors", "appraiser", "attesters", "chains", "requirements")

    def __init__(
        self,
        *,
        requirements: Requirements,
        anchors: TrustAnchors,
        appraiser: Appraiser,
        renewal: Renewal | None = None,
        attesters: Sequence[x509.Certificate] | None = None,
    ) -> None:
        self.requirements: Final = requirements
        self.anchors: Final = anchors
        self.chains: Final = ChainCache()
        self.attesters: Final = attesters
        self.appraiser = appraiser
        self._renewal = renewal

    def follow(self, renewal: Renewal) -> None:
        """Ask ``renewal`` by what to judge from now on."""
        self._renewal = renewal

    def refresh(self, at: datetime) -> None:
        """Judge by changed reference values from now on, where there are any.

        Raises:
            EnvironmentFault: as :meth:`.Renewal.renew`.
        """
        if self._renewal is not None and (changed := self._renewal.renew(at)) is not None:
            self.appraiser = changed


@final
class Benches:
    """The benches of all tenants, by name; at least one.

    Raises:
        ValueError: there is none, two are of one tenant, or two have an authority of attesters in common.
    """

    __slots__ = ("_benches", "_only")

    def __init__(self, benches: Iterable[Bench]) -> None:
        listed = list(benches)
        self._benches = {bench.requirements.tenant: bench for bench in listed}
        if not listed or len(self._benches) != len(listed):
            raise ValueError("each tenant has one bench, and there is at least one")
        own = [keys_of(bench.attesters or ()) for bench in listed]
        if len(frozenset[bytes]().union(*own)) != sum(map(len, own)):
            raise ValueError("no authority admits attesters of two tenants")
        self._only = listed[0] if len(listed) == 1 else None

    def opening(self, tenant: str, certificate: x509.Certificate | None = None) -> Bench:
        """The bench of an attester that says it is ``tenant``'s; what it says is compared with the requirements next.

        Args:
            tenant: as the attester says.
            certificate: of the attester's channel, which the transport has verified.

        Raises:
            NotAuthentic: ``WINDOW_TENANT``; which tenants there are is not said, nor whose certificate it is.
        """
        found = self._only or self._benches.get(tenant)
        if found is None or not self._may(found, certificate):
            raise NotAuthentic(
                Code.WINDOW_TENANT,
                "this verifier does not serve this tenant, or not by this certificate",
                where="opening.tenant",
                got=tenant,
                hint="start the attester with the --tenant that it was admitted for",
            )
        return found

    def _may(self, bench: Bench, certificate: x509.Certificate | None) -> bool:
        """Whether whoever has ``certificate`` may attest for the tenant of ``bench``."""
        if bench.attesters is not None:
            return certificate is not None and any(issued(certificate, by) for by in bench.attesters)
        # What another tenant's authority issues is good for that one alone.
        others = [by for other in self._benches.values() for by in other.attesters or ()]
        return certificate is None or not any(issued(certificate, by) for by in others)

    def judging(self, tenant: str) -> Bench:
        """The bench for a session of ``tenant``, which has been enrolled.

        Raises:
            EnvironmentFault: ``POLICY_ABSENT``: the tenant is not served any more. Nothing is judged by another's, also
                where only that one is left.
        """
        found = self._benches.get(tenant)
        if found is None:
            raise EnvironmentFault(
                Code.POLICY_ABSENT,
                "the session's tenant is not served here any more",
                where=tenant,
                hint="name its requirements again: [[tenants]] in the file of weighbridge serve --config",
            )
        return found

    def refresh(self, at: datetime) -> None:
        """Refresh all, also where one cannot be.

        Raises:
            EnvironmentFault: of the first that cannot.
        """
        first: EnvironmentFault | None = None
        for bench in self._benches.values():
            try:
                bench.refresh(at)
            except EnvironmentFault as error:
                first = first or error
        if first is not None:
            raise first
