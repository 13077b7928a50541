"""One GPU report judged by a process that begins and ends with it: ours, for the comparison with NVIDIA's.

Reads the same question as `tests/support/nvidia_peer.py` from standard input, and does what that one's code does:
chain, report and nonce, both manifests, all measurements. Prints the comparison's status.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from weighbridge.proto.spdm import report as spdm
from weighbridge.verifier.anchors import Anchor, Purpose, TrustAnchors
from weighbridge.verifier.certs import load_certificate, pem_certificates
from weighbridge.verifier.gpu.chain import verify_chain
from weighbridge.verifier.gpu.report import verify_report
from weighbridge.verifier.gpu.rim import RimSet, compare, verify_rim

question = json.loads(sys.stdin.readline())


def anchor(purpose: Purpose, file: str) -> Anchor:
    """The root in a PEM file."""
    (der,) = pem_certificates(Path(file).read_bytes(), what=purpose)
    return Anchor.from_certificate(purpose, load_certificate(der, purpose), platform="insecure-emulated", source=file)


trust = TrustAnchors(
    (anchor("nvidia-device-root", question["device_root"]), anchor("nvidia-rim-root", question["rim_root"]))
)
now = datetime.now(UTC)
device = question["devices"][0]
chain = verify_chain(pem_certificates(device["chain"].encode(), what="chain"), trust, at=now)
report = verify_report(spdm.parse(bytes.fromhex(device["report"])), chain, nonce=bytes.fromhex(question["nonce"]))
rims = RimSet.of(verify_rim(text.encode(), anchors=trust, at=now) for text in question["rims"].values())
print(compare(report.report, report.chain, rims).status)
