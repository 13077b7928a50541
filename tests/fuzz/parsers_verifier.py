"""The parsers of ``verifier``, and what verifies as it parses: what attesters, vendors, operators and disks send."""

from __future__ import annotations

from typing import Final

from fuzz import calls, seeds, seeds_ledger
from fuzz.parsers_proto import AUTHORS, BASELINES, BELIEVED, BOOT, GOOD, OWNERS, SNP
from fuzz.seeds_ledger import NOTE_KEY
from fuzz.specs import Spec, encode
from support.world import NOON
from weighbridge.proto import cose
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import LedgerInconsistent, MalformedEvidence, WeighbridgeError
from weighbridge.proto.x509 import load_certificate, spki_der
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.result.trusted import TrustedKey

RIM: Final = "published/002-other-measurement-than-the-manifests"
NRAS: Final = "nras/001-good"
TOKEN: Final = "token/001-good"
REFUSED: Final = (WeighbridgeError,)
_IDENTITY: Final = TrustedKey(seeds.SIGNER.public_key())

SPECS: Final = (
    # Attesters.
    Spec("verifier.procedure:authenticate", case=GOOD, errors=BELIEVED),
    Spec("verifier.core:Verifier.open", case=GOOD, errors=REFUSED),
    Spec("verifier.weights:open_manifests", case=GOOD),
    Spec("verifier.boot.cmdline:parse", case=BOOT),
    # Vendors.
    Spec("verifier.gpu.rim.strict_xml:parse", case=RIM),
    Spec("verifier.gpu.rim.dsig:parse", case=RIM),
    Spec("verifier.gpu.rim.swid:parse", case=RIM),
    Spec("verifier.gpu.rim.verify:verify_rim", case=RIM, errors=REFUSED),
    Spec("verifier.gpu.rim.load:load_rim", case=RIM, errors=REFUSED),
    Spec("verifier.gpu.ocsp:parse", case="published/022-everything-good"),
    Spec("verifier.gpu.issuer_crl:parse_crl", seeds=lambda: [seeds.crl()]),
    Spec("verifier.gpu.nras.eat:Token.parse", case=NRAS),
    Spec("verifier.gpu.nras.eat:parse", case=NRAS),
    Spec("verifier.gpu.nras.jwks:parse", case=NRAS),
    Spec("verifier.gpu.nras.verify:verify_nras", case=NRAS, errors=REFUSED),
    Spec("verifier.gpu.recorded:parse_evidence", seeds=lambda: [seeds.recorded_evidence()]),
    Spec("verifier.tee.crl:verify_crl", case=SNP, errors=REFUSED),
    Spec(
        "verifier.tee.crl:issuer_of",
        case=SNP,
        seeds_of="verifier.tee.crl:verify_crl",
        call=lambda function, data: function(data, what="seed"),
        errors=REFUSED,
    ),
    Spec("verifier.tee.snp:verify_snp", case=SNP, errors=REFUSED),
    Spec(
        "verifier.tee.tdx:verify_td_quote",
        seeds=lambda: [seeds.TDX.quote(bytes(64))],
        call=lambda function, data: function(
            data, collateral=[seeds.TDX.collateral()], anchors=seeds.TDX.anchors(), at=NOON
        ),
        errors=REFUSED,
    ),
    Spec(
        "verifier.collateral.describe:recognise",
        case=RIM,
        seeds_of="verifier.gpu.rim.load:load_rim",
        call=lambda function, data: function(data, where="seed"),
        errors=REFUSED,
    ),
    # Owners, authors and operators.
    Spec("verifier.anchors:load", case="bundle/002-default-anchors"),
    Spec("verifier.reference_set:authenticate", case=OWNERS, errors=REFUSED),
    Spec("verifier.reference_set:verify", case=OWNERS, seeds_of="verifier.reference_set:authenticate", errors=REFUSED),
    Spec(
        "verifier.host_set:verify",
        seeds=lambda: [seeds.host_set(signed=True)],
        call=lambda function, data: function(data, anchors=TrustAnchors((seeds.HOST_OWNER.anchor(),))),
        errors=REFUSED,
    ),
    Spec("verifier.policy_bundle:verify", case=AUTHORS, errors=REFUSED),
    Spec("verifier.baseline_set:verify", case=BASELINES, errors=REFUSED, slow=True),
    Spec("verifier.requirements:Requirements.parse", case=GOOD),
    Spec("verifier.relying_parties:RelyingParties.parse", seeds=lambda: [seeds.relying_parties()]),
    Spec("verifier.gate.configuration:GateFile.parse", seeds=lambda: [seeds.gate_file()]),
    Spec(
        "verifier.peers:authorities",
        seeds=lambda: [seeds.authority()],
        call=lambda function, data: function(data, where="seed"),
    ),
    Spec("verifier.shown_requests:ClaimedWork.parse_all", seeds=lambda: [seeds.claimed_requests()]),
    Spec(
        "verifier.database.address:PostgresAddress.parse",
        seeds=lambda: [b"postgresql://weighbridge@db.example/w"],
        errors=(ValueError, WeighbridgeError),
    ),
    Spec(
        "verifier.ledger.s3:S3Address.parse",
        seeds=lambda: [b"s3://bucket/prefix"],
        errors=(ValueError, WeighbridgeError),
    ),
    Spec("verifier.file_kinds:kind_of", seeds=lambda: [*seeds.signer(), b"{}"], errors=()),
    Spec("verifier.settings.layers:load", seeds=seeds.settings, call=calls.in_file, errors=REFUSED),
    Spec("verifier.http_server:HttpServer", seeds=seeds.http_requests, call=calls.http, errors=()),
    Spec(
        "verifier.http_service:HttpService",
        seeds=lambda: [b"token=a.b.c&token_type_hint=access_token", b"token=AAAA"],
        call=calls.form,
        errors=(ValueError,),
    ),
    Spec(
        "verifier.result_service:ResultService",
        seeds=seeds.watches,
        call=calls.watch,
        errors=(ValueError, WeighbridgeError),
    ),
    # Results and their keys.
    Spec("verifier.result.verifying:verify", case=TOKEN, errors=BELIEVED),
    Spec("verifier.result.verifying:verify_any", case=TOKEN, errors=BELIEVED),
    Spec(
        "verifier.result.jwks:read",
        seeds=lambda: [seeds.key_set()],
        call=lambda function, data: function(data, [_IDENTITY]),
        errors=BELIEVED,
    ),
    Spec(
        "verifier.result.confirmation:confirm",
        seeds=lambda: [seeds.der_certificate()],
        call=lambda function, data: function(
            data, cnf=sha256(spki_der(load_certificate(seeds.der_certificate(), "seed")))
        ),
        errors=BELIEVED,
    ),
    Spec("verifier.result.confirmation:jwk_thumbprint", seeds=lambda: [cose.spki(seeds.SIGNER.public_key())]),
    Spec("verifier.result.endorsement:claimed_verifier", seeds=lambda: [seeds.token_key()]),
    # Records, bundles and the ledger.
    Spec("verifier.record:Record.parse", case=GOOD, again=encode),
    Spec("verifier.record:Leaf.parse", case=GOOD, again=encode),
    Spec("verifier.recorded:read_verdict", case=GOOD, errors=REFUSED),
    # A frame has many encodings, its content has one: the target `bundles` has that.
    Spec("verifier.bundle_format:Bundle.parse", case=GOOD),
    Spec("verifier.kept_position:decode", case="extra/restored"),
    Spec("verifier.bundle_proof:open_checkpoint", case=GOOD, errors=REFUSED),
    Spec("verifier.redaction:Redaction.parse", case="bundle/001-good", seeds=lambda: [seeds.redaction()]),
    Spec("verifier.affirmed:Affirmed.parse", seeds=lambda: [seeds.affirmed()], again=encode),
    Spec(
        "verifier.telemetry.past:read_evidence",
        seeds=lambda: [seeds.session_evidence()],
        call=lambda function, data: function(data, where="seed"),
    ),
    Spec("verifier.ledger.segment:parse_recipe", case=GOOD, errors=(MalformedEvidence, LedgerInconsistent)),
    Spec("verifier.ledger.committed_head:CommittedHead.parse", seeds=lambda: [seeds_ledger.head()], again=encode),
    Spec("verifier.ledger.heads:ForkEvidence.parse", seeds=lambda: [seeds_ledger.fork()]),
    Spec(
        "verifier.ledger.watched:Watched.parse",
        seeds=seeds_ledger.watched,
        call=lambda function, data: function(data, NOTE_KEY, silence_ns=1),
        errors=REFUSED,
    ),
    Spec(
        "verifier.commands.bundle:parse_bundle",
        case=GOOD,
        seeds_of="verifier.bundle_format:Bundle.parse",
        call=lambda function, data: function(data, "seed"),
    ),
)
