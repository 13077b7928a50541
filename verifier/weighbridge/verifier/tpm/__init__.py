"""What TPM evidence proves: endorsement key, attestation key, quote, telemetry key, and that nothing was reset.

Pure: bytes, times and anchors come in as arguments; nothing is fetched. The order of a session is that of the
modules, each taking what the one before has verified:

1. ``ek``: an EK certificate chains to an anchor and its key is the TPM's standard endorsement key → ``VerifiedEk``;
2. ``credential``: a secret that only this TPM, holding this AK, can return;
3. ``ak``: the secret came back, or a cloud's certificate (``ak_certificate``), hardware (``tee.vtpm``) or the
   operator vouches for the AK → ``VerifiedAk``; ``provenance`` chooses;
4. ``quote``: PCR values, fresh, under that AK → ``VerifiedQuote``;
5. ``certify``: the session's telemetry key dies with the next reset and signs only under the boot PCRs
   → ``VerifiedTelemetryKey``;
6. ``continuity``: from one quote to the next the TPM was not reset.
"""
