"""Left out on purpose: `Verifier.production` and `staging`, which ask the network whom to trust."""

from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import policy as policy

class Verifier:
    def __init__(self, *, trusted_root: TrustedRoot) -> None: ...
    def verify_dsse(self, bundle: Bundle, policy: policy.VerificationPolicy) -> tuple[str, bytes]: ...
