"""Hand-written stub of `dcap_qvl` 0.7.0: what this project may use. The package has annotations, but no `py.typed`.

Left out on purpose: `verify` (its root is compiled in), everything asynchronous (it fetches), `from_json` (it takes a
PCK chain beside the quote's own), and the policies (ours decides).
"""

class QuoteCollateralV3:
    def __init__(
        self,
        pck_crl_issuer_chain: str,
        root_ca_crl: bytes,
        pck_crl: bytes,
        tcb_info_issuer_chain: str,
        tcb_info: str,
        tcb_info_signature: bytes,
        qe_identity_issuer_chain: str,
        qe_identity: str,
        qe_identity_signature: bytes,
    ) -> None: ...

class VerifiedReport:
    @property
    def status(self) -> str: ...
    @property
    def advisory_ids(self) -> list[str]: ...

class PckExtension:
    @property
    def fmspc(self) -> bytes: ...

def parse_pck_extension_from_pem(pem_bytes: bytes) -> PckExtension: ...
def verify_with_root_ca(
    raw_quote: bytes, collateral: QuoteCollateralV3, root_ca_der: bytes, now_secs: int
) -> VerifiedReport: ...
