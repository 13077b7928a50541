"""What NVIDIA's attestation service (NRAS) says of the same devices: an extra witness, never a permission.

The service takes reports and answers with signed tokens. :func:`verify_nras` proves that it said this, over this nonce,
while its key was good. What it says can contradict what was verified here, and then it refuses; it can corroborate, and
then it admits nothing: no rule of ours is satisfied by it.
"""

from weighbridge.verifier.gpu.nras.claims import Contradiction
from weighbridge.verifier.gpu.nras.eat import DetachedEat, parse
from weighbridge.verifier.gpu.nras.reports import ComparedDevice, Difference, compare
from weighbridge.verifier.gpu.nras.tokens import claimed_beginning
from weighbridge.verifier.gpu.nras.verify import VerifiedNras, WitnessedDevice, verify_nras

__all__ = [
    "ComparedDevice",
    "Contradiction",
    "DetachedEat",
    "Difference",
    "VerifiedNras",
    "WitnessedDevice",
    "claimed_beginning",
    "compare",
    "parse",
    "verify_nras",
]
