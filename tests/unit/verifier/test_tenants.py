"""Several tenants at one verifier: each is judged by its own requirements, policy and anchors, and by nobody else's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from support.service import Authority, Served
from support.world import Engines, World, reference_for, requirements
from weighbridge.attester.keys import ChannelKey
from weighbridge.policy import policy_set
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, WeighbridgeError
from weighbridge.verifier import enroller
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.appraisal import Appraiser
from weighbridge.verifier.bench import Bench, Benches
from weighbridge.verifier.certs import spki_der
from weighbridge.verifier.core import Verifier


class Watched:
    """Counts who asks; fails when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False

    def renew(self, at: datetime) -> Appraiser | None:  # noqa: ARG002 - of no time
        self.asked += 1
        if self.broken:
            raise EnvironmentFault(Code.STATE_LOCKED, "a test")
        return None


def serve(world: World, *benches: Bench) -> Verifier:
    """The verifier comes up with these tenants beside its first."""
    world.verifier = Verifier(
        requirements=world.wanted,
        anchors=world.anchors,
        appraiser=world.appraiser,
        keys=world.keys,
        archive=world.archive,
        store=world.store,
        clock=world.clock,
        issuer="ledger.example/test",
        others=benches,
    )
    return world.verifier


def bench(
    world: World,
    tenant: str,
    engines: Engines,
    *,
    policy: policy_set.Shipped = "insecure_development",
    anchors: TrustAnchors | None = None,
    **wanted: object,
) -> Bench:
    reference = reference_for(world.host.gpus, [world.host.model])
    made = policy_set.shipped(policy, reference=reference)
    appraiser = Appraiser(engines.load(made), reference, world.models, world.published, {made.digest: made.files})
    return Bench(
        requirements=requirements(tenant=tenant, **wanted), anchors=anchors or world.anchors, appraiser=appraiser
    )


@pytest.fixture
def world(tmp_path: Path, engines: Engines) -> Iterator[World]:
    made = World.make(tmp_path, engines=engines)
    yield made
    made.close()


def as_of(world: World, tenant: str, name: str) -> None:
    """Another host attests, for this tenant."""
    world.host = world.another_host(name)
    world.host.tenant = tenant


def test_each_tenants_terms_and_policy_are_its_own(world: World, engines: Engines) -> None:
    serve(world, bench(world, "tenant-b", engines, policy="production", period_ns=20_000_000_000))
    world.open_session()
    first = world.window()
    as_of(world, "tenant-b", "b")
    world.open_session()
    assert world.host.terms is not None
    assert (world.host.terms.terms.tenant, world.host.terms.terms.period_ns) == ("tenant-b", 20_000_000_000)
    second = world.window()
    assert first.verdict.outcome == "affirmed"
    # What is emulated is good enough for the one, and for the other it is not.
    assert second.verdict.outcome == "denied"
    assert first.verdict.decision is not None
    assert second.verdict.decision is not None
    assert first.verdict.decision.policy_digest != second.verdict.decision.policy_digest


def test_no_tenant_keeps_others_from_enrolling(world: World, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening takes no device: whoever opens all there may be, and proves none, loses his own to the others."""
    monkeypatch.setattr(enroller, "_PENDING_MAX", 4)
    serve(world, bench(world, "tenant-b", engines))

    def flood(tenant: str) -> int:
        world.host.tenant, opened = tenant, 0
        for number in range(8):
            world.host.peer = sha256(b"%s %d" % (tenant.encode(), number))
            with contextlib.suppress(EnvironmentFault):
                world.verifier.open(world.host.opening().encode(), peer=world.host.peer)
                opened += 1
        return opened

    assert flood("tenant-a") == 4
    # An equal part, and no more of it by asking again.
    assert [flood("tenant-b"), flood("tenant-a"), flood("tenant-b")] == [2, 0, 0]
    serve(world, bench(world, "tenant-b", engines), bench(world, "tenant-c", engines))
    assert [flood("tenant-b"), flood("tenant-a")] == [4, 2]
    as_of(world, "tenant-c", "c")
    world.open_session()
    assert world.window().verdict.outcome == "affirmed"


def test_each_tenant_believes_its_own_anchors(world: World, engines: Engines) -> None:
    """What is believed for one is not believed for another, also where the chain was verified for the one before."""
    serve(world, bench(world, "tenant-b", engines, anchors=TrustAnchors(())))
    world.open_session()
    world.window()
    as_of(world, "tenant-b", "b")
    with pytest.raises(NotAuthentic) as caught:
        world.open_session()
    assert caught.value.code is Code.CHAIN_UNTRUSTED


def test_a_tenant_that_is_not_served_learns_nothing(world: World, engines: Engines) -> None:
    serve(world, bench(world, "tenant-b", engines))
    as_of(world, "tenant-c", "c")
    with pytest.raises(NotAuthentic) as caught:
        world.open_session()
    assert (caught.value.code, caught.value.expected) == (Code.WINDOW_TENANT, None)


def test_sessions_go_on_after_a_restart_and_not_under_another_tenant(world: World, engines: Engines) -> None:
    other = bench(world, "tenant-b", engines)
    serve(world, other)
    as_of(world, "tenant-b", "b")
    world.open_session()
    assert world.window().verdict.outcome == "affirmed"
    serve(world, bench(world, "tenant-b", engines))
    assert world.window().verdict.outcome == "affirmed"
    # The tenant is gone from the file: nothing is judged, and nothing is held against its host. Also not by the one
    # tenant that is left.
    world.clock.advance(1)
    sealed = world.host.seal()
    for left in ([bench(world, "tenant-c", engines)], []):
        serve(world, *left)
        with pytest.raises(EnvironmentFault) as caught:
            world.send(sealed.evidence)
        assert caught.value.code is Code.POLICY_ABSENT
    serve(world, bench(world, "tenant-b", engines))
    assert world.deliver(sealed).verdict.outcome == "affirmed"


def test_one_tenants_files_do_not_keep_another_waiting(world: World, engines: Engines) -> None:
    other, own, others = bench(world, "tenant-b", engines), Watched(), Watched()
    verifier = serve(world, other)
    verifier.follow(own)
    other.follow(others)
    world.open_session()
    others.broken = True
    asked = others.asked
    assert world.window().verdict.outcome == "affirmed"
    assert (own.asked > 0, others.asked) == (True, asked)
    with pytest.raises(EnvironmentFault):
        verifier.refresh()
    before = own.asked
    with pytest.raises(EnvironmentFault):
        verifier.refresh()
    assert own.asked == before + 1


def test_a_certificate_of_one_tenant_attests_for_no_other(world: World, engines: Engines, tmp_path: Path) -> None:
    certificates = {name: certified(tmp_path / name) for name in ("a", "b", "common")}
    own = {name: authority for name, (authority, _) in certificates.items()}
    shown = {"": None, **{name: certificate for name, (_, certificate) in certificates.items()}}
    first, second, third = (bench(world, f"tenant-{name}", engines) for name in "abc")
    benches = Benches(
        Bench(
            requirements=one.requirements,
            anchors=one.anchors,
            appraiser=one.appraiser,
            attesters=None if name == "c" else (own[name],),
        )
        for name, one in zip("abc", (first, second, third), strict=True)
    )
    may = {
        (tenant, name): allowed(benches, f"tenant-{tenant}", certificate)
        for tenant in "abc"
        for name, certificate in shown.items()
    }
    # Without a channel (in these tests) nobody has shown a certificate, and only whoever needs none is taken.
    assert {pair for pair, taken in may.items() if taken} == {("a", "a"), ("b", "b"), ("c", "common"), ("c", "")}


def test_over_a_real_channel_the_tenants_own_authority_counts(world: World, tmp_path: Path) -> None:
    common, own = Authority(tmp_path / "common"), Authority(tmp_path / "own")
    common.tls = common.tls.with_authorities(None, (own.tls.client_ca,))
    world.verifier = Verifier(
        requirements=world.wanted,
        anchors=world.anchors,
        appraiser=world.appraiser,
        keys=world.keys,
        archive=world.archive,
        store=world.store,
        clock=world.clock,
        issuer="ledger.example/test",
        attesters=[x509.load_pem_x509_certificate(own.certificate)],
    )
    with Served(world, common) as served:
        for authority, taken in ((common, False), (own, True)):
            channel = authority.admit("attester")
            world.host.peer = channel.peer
            remote = served.connect(channel)
            if taken:
                remote.enrol(world.host)
                assert remote.window(world.host)["outcome"] == "affirmed"
                continue
            with pytest.raises(WeighbridgeError) as caught:
                remote.enrol(world.host)
            assert caught.value.code is Code.WINDOW_TENANT


class Issuer:
    """An authority that may have others below it, and their hosts."""

    def __init__(self, name: str, above: Issuer | None = None) -> None:
        self._key: Final = ec.generate_private_key(ec.SECP256R1())
        self.certificate: Final = (above or self).issue(name, self._key, is_authority=True)

    def issue(self, name: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool = False) -> x509.Certificate:
        at, subject = datetime.now(UTC), _named(name)
        issuer = self.certificate.subject if hasattr(self, "certificate") else subject
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(at - timedelta(days=1)).not_valid_after(at + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        return builder.sign(self._key, hashes.SHA256())

    def admit(self, name: str, *above: x509.Certificate) -> ChannelKey:
        """A host's channel, which shows ``above`` beside its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = self.issue(name, key)
        return ChannelKey(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            b"".join(one.public_bytes(Encoding.PEM) for one in (own, *above)),
            sha256(spki_der(own)),
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def test_over_a_real_channel_no_intermediate_attests_for_another_tenant(
    world: World, engines: Engines, tmp_path: Path
) -> None:
    """Whoever has a tenant's authority may make others below it: their hosts are nobody's."""
    common, above = Authority(tmp_path / "common"), Issuer("b's")
    below = Issuer("below", above)
    (tmp_path / "b.pem").write_bytes(above.certificate.public_bytes(Encoding.PEM))
    common.tls = common.tls.with_authorities(None, (tmp_path / "b.pem",))
    other = bench(world, "tenant-b", engines)
    others = Bench(
        requirements=other.requirements,
        anchors=other.anchors,
        appraiser=other.appraiser,
        attesters=(above.certificate,),
    )
    serve(world, others)
    with Served(world, common) as served:
        for tenant in (world.wanted.tenant, "tenant-b"):
            as_of(world, tenant, tenant)
            channel = below.admit("host", below.certificate)
            world.host.peer = channel.peer
            with pytest.raises(WeighbridgeError) as caught:
                served.connect(channel).enrol(world.host)
            assert (caught.value.code, "PEER_ROLE" in caught.value.message) == (Code.PEER_REFUSED, True)
        # Directly it admits its tenant's hosts.
        channel = above.admit("host")
        world.host.peer = channel.peer
        served.connect(channel).enrol(world.host)


def allowed(benches: Benches, tenant: str, certificate: x509.Certificate | None) -> bool:
    try:
        return benches.opening(tenant, certificate).requirements.tenant == tenant
    except NotAuthentic as error:
        return error.code is not Code.WINDOW_TENANT


def certified(directory: Path) -> tuple[x509.Certificate, x509.Certificate]:
    """An authority, and the certificate of an attester that it admitted."""
    authority = Authority(directory)
    admitted = authority.admit("attester").certificate
    return x509.load_pem_x509_certificate(authority.certificate), x509.load_pem_x509_certificate(admitted)


def test_no_authority_admits_hosts_of_two_tenants(world: World, engines: Engines) -> None:
    own, one = Issuer("one"), ec.generate_private_key(ec.SECP256R1())
    again = own.issue("other", one, is_authority=True)
    renewed = own.issue("renewed", one, is_authority=True)

    def admitting(tenant: str, *attesters: x509.Certificate) -> Bench:
        made = bench(world, tenant, engines)
        return Bench(
            requirements=made.requirements, anchors=made.anchors, appraiser=made.appraiser, attesters=attesters
        )

    # Also under another name: it is the key that issues.
    for first, second in (((own.certificate,), (again, own.certificate)), ((again,), (renewed,))):
        with pytest.raises(ValueError, match="of two tenants"):
            Benches([admitting("tenant-a", *first), admitting("tenant-b", *second)])
    Benches([admitting("tenant-a", own.certificate), admitting("tenant-b", again, renewed)])


def test_each_tenant_has_one_bench(world: World, engines: Engines) -> None:
    with pytest.raises(ValueError, match="one bench"):
        Benches([bench(world, "tenant-a", engines), bench(world, "tenant-a", engines)])
    with pytest.raises(ValueError, match="at least one"):
        Benches([])
