"""TPM 2.0 wire structures in pure Python: strict, bounded, without IO.

Attester and verifier must agree on these bytes: Names, policy digests, templates, quotes. Parsing says only that
bytes are well-formed; what they prove is decided in ``weighbridge.verifier.tpm``. Each structure has a module of its
own with a ``parse``:

==============  ==========================================================
``attest``      TPMS_ATTEST: quotes and certifications
``signature``   TPMT_SIGNATURE
``public``      TPMT_PUBLIC, and the accepted keys
``pcr``         selections, PCR digests, PolicyPCR
``names``       Names and qualified names
``templates``   what our keys are created from
``evidence``    a quote as it travels
``constants``   numbers, and the one table of accepted algorithms
``wire``        the reader under all of them
==============  ==========================================================
"""
