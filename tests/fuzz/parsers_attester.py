"""The parsers of ``attester`` and of ``policy``: what hosts, their operators, models and policies hand over."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Final

from fuzz import calls, seeds
from fuzz.parsers_proto import BELIEVED, GOOD
from fuzz.seeds import vector
from fuzz.specs import Spec
from support.world import NOON
from weighbridge.attester.trust import TrustedVerifiers
from weighbridge.proto.errors import EnvironmentFault, MalformedEvidence, PolicyDenied, WeighbridgeError

_ARGUMENT: Final = (ValueError, ArgumentTypeError, WeighbridgeError)
"""What is typed on a command line is refused by argparse."""

SPECS: Final = (
    # What a verifier answers.
    Spec("attester.refusal:VerdictNotice.parse", seeds=lambda: [seeds.verdict()]),
    Spec("attester.trust:TrustedVerifiers.load", seeds=lambda: [seeds.trusted_verifiers()]),
    Spec(
        "attester.trust:TrustedVerifiers.open_terms",
        seeds=lambda: [seeds.signed_terms()],
        call=lambda function, data: function(TrustedVerifiers.load(seeds.trusted_verifiers()), data, at=NOON),
        errors=BELIEVED,
    ),
    # Models.
    Spec("attester.weights.safetensors:parse_header", seeds=seeds.safetensors, call=calls.safetensors),
    Spec(
        "attester.weights.safetensors:header_length",
        seeds=lambda: [(16).to_bytes(8, "little")],
        call=lambda function, data: function(data[:8], file_size=64, where="m.safetensors"),
    ),
    Spec("attester.weights.gguf:parse_header", seeds=lambda: [seeds.gguf()], call=calls.gguf),
    Spec("attester.model_signing.keys:load_public_key", seeds=lambda: [seeds.signer()[0]]),
    Spec("attester.model_signing.keys:load_roots", seeds=lambda: [seeds.signer()[2]]),
    Spec("attester.model_signing.keys:load_signing_key", seeds=lambda: [seeds.signer()[1]]),
    # Inference servers, sensors, TPMs.
    Spec("attester.workload.messages:parse", seeds=seeds.messages),
    Spec("attester.telemetry.engine_page:read_page", seeds=lambda: [seeds.METRICS_PAGE], errors=(EnvironmentFault,)),
    Spec("attester.telemetry.adc_decode:Decoder.feed", seeds=lambda: [b"\x031.5\n2\n"], call=calls.adc, errors=()),
    Spec("attester.telemetry.csv_trace:parse", seeds=lambda: [b"t,watts\n0,1.5\n1,2\n"], call=calls.csv),
    Spec("attester.tpm.nv:trim_certificate", seeds=lambda: [seeds.der_certificate()], errors=(EnvironmentFault,)),
    Spec("attester.tpm.nv:split_certificates", seeds=lambda: [seeds.der_certificate() * 2], errors=(EnvironmentFault,)),
    # Command lines.
    Spec("attester.telemetry.csv_trace:Column.parse", seeds=lambda: [b"power=watts:W"], errors=_ARGUMENT),
    Spec("attester.telemetry.emulated_load:LoadRange.parse", seeds=lambda: [b"100+200..300+400@8"], errors=_ARGUMENT),
    Spec(
        "attester.telemetry.engine:Address.parse",
        seeds=lambda: [b"http://127.0.0.1:8000/metrics"],
        call=lambda function, text: function(text, remote=False),
        errors=_ARGUMENT,
    ),
    Spec("attester.telemetry.registry:Choice.parse", seeds=lambda: [b"emulated:load=1"], errors=_ARGUMENT),
    Spec("attester.commands.gpu_arguments:GpuChoice.parse", seeds=lambda: [b"emulated:2"], errors=_ARGUMENT),
    Spec("attester.tpm.options:AkChoice.parse", seeds=lambda: [b"srk"], errors=_ARGUMENT),
    Spec("attester.tpm.options:parse_handle", seeds=lambda: [b"0x81000003"], errors=_ARGUMENT),
    # Policies.
    Spec("policy.values.reference:Reference.parse", seeds=lambda: [vector("reference")]),
    Spec("policy.document.facts:PolicyInput.parse", seeds=lambda: [seeds.policy_input()]),
    Spec("policy.authoring.golden:Golden.parse", seeds=lambda: [seeds.golden()]),
    Spec("policy.engines.output:read_answer", case=GOOD, errors=(MalformedEvidence, PolicyDenied)),
    Spec(
        "policy.engines.workbench:read_value", seeds=lambda: [b'{"result":[{"expressions":[{"value":1,"text":"x"}]}]}']
    ),
)
