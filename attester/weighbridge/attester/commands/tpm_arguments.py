"""The arguments about this host's TPM, its platform and its boot, and the files that they name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from weighbridge.attester.boot import IMA_PCR, BootFiles
from weighbridge.attester.durable import read_file
from weighbridge.attester.report import Notice
from weighbridge.attester.tpm.options import AZURE_AK_HANDLE, AkChoice, TpmOptions, parse_handle
from weighbridge.proto import limits
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.attester.boot import RuntimeList
    from weighbridge.attester.report import Observer

__all__ = ["boot_logs", "collateral", "configure", "misuse", "tpm_options"]

_Value = TypeVar("_Value")

_NONE: Final = "none"
_KEY_FILE: Final = "attestation-key.cbor"
_CERTIFICATES_MAX: Final = 4
_PEM_CRL: Final = b"-----BEGIN X509 CRL-----"
_SEQUENCE: Final = b"\x30"
_OBJECT: Final = b"{"
_COLLATERAL_HINT: Final = "docs/operating.md says where revocation lists and DCAP collateral are had"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to ``parser``."""
    tpm = parser.add_argument_group("the TPM's keys, and why they are believed")
    tpm.add_argument(
        "--ak",
        metavar="KIND",
        type=_argument(AkChoice.parse),
        default=AkChoice(),
        help="attestation key: endorsement (default), srk (lost for good when the TPM is cleared), gce (Google's), or "
        "handle:0x81000003 (a persistent key: Azure's there)",
    )
    tpm.add_argument(
        "--ek-handle",
        metavar="HANDLE",
        type=_argument(parse_handle),
        help="where the endorsement key is kept (default: where its profile says, else it is made)",
    )
    tpm.add_argument(
        "--platform-certificates",
        metavar="FILE",
        type=Path,
        help="PEM: VCEK, ASK and ARK of this processor (SEV-SNP), or intermediates that the TPM does not store",
    )
    tpm.add_argument(
        "--td-quote",
        metavar="FILE",
        type=Path,
        help="the TD quote over the paravisor's report (TDX, with --ak handle:0x81000003)",
    )
    tpm.add_argument(
        "--collateral",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="what the processor's maker publishes: a revocation list (DER or PEM), or DCAP collateral (JSON); several "
        "times",
    )
    tpm.add_argument(
        "--boot-logs",
        metavar="DIR",
        help="below which directory the logs of the boot are (default: /, or none with an emulated TPM), or none: keep "
        "them back",
    )


def misuse(args: argparse.Namespace) -> str | None:
    """What is wrong with arguments that do not go together; ``None`` where they do."""
    ak: AkChoice = args.ak
    if args.td_quote is not None and ak.handle != AZURE_AK_HANDLE:
        return f"--td-quote is shown for the key of --ak handle:{AZURE_AK_HANDLE:#x}, and for no other"
    return None


def tpm_options(args: argparse.Namespace) -> TpmOptions:
    """Which keys, with the certificates beside them.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: ``CERT_MALFORMED`` or ``TOO_LARGE``.
    """
    certificates: Path | None = args.platform_certificates
    td_quote: Path | None = args.td_quote
    state: Path = args.state
    return TpmOptions(
        ak=args.ak,
        ek_handle=args.ek_handle,
        key_file=state / _KEY_FILE,
        certificates=() if certificates is None else _certificates(certificates),
        td_quote=None if td_quote is None else read_file(td_quote, limit=limits.TD_QUOTE_MAX, what="TD quote"),
    )


def collateral(args: argparse.Namespace) -> Collateral:
    """What ``--collateral`` names; neither signatures nor age are looked at.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: ``FIELD_RANGE`` for a file of another kind, ``TOO_LARGE``.
    """
    paths: list[Path] = args.collateral
    items = Collateral.of(*(_item(path) for path in paths))
    if len(items.items) > limits.COLLATERAL_ITEMS_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE,
            "too many pieces of collateral",
            where="--collateral",
            expected=f"<= {limits.COLLATERAL_ITEMS_MAX}",
            got=len(items.items),
        )
    return items


def boot_logs(args: argparse.Namespace, observer: Observer) -> tuple[BootFiles | None, RuntimeList | None]:
    """The logs of the boot, and the kernel's list; ``None`` where they are kept back or not there.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE`` for logs below a directory that was named. Where none was, that is told,
            and a verifier that demands them says so.
    """
    root: str | None = args.boot_logs
    tcti: str = args.tcti
    if root == _NONE or (root is None and tcti.startswith("swtpm:")):
        # An emulator has seen nothing of this machine's boot.
        return None, None
    files = BootFiles(Path("/" if root is None else root))
    if root is not None and not files.any_there():
        raise EnvironmentFault(
            Code.FILE_UNREADABLE,
            "none of a boot's logs is there" if files.root.is_dir() else "no directory",
            where=str(files.root),
            hint="--boot-logs takes the directory below which sys and run are, or none",
        )
    try:
        return files, files.runtime()
    except EnvironmentFault as error:
        if root is not None:
            raise
        observer.notice(Notice("boot-logs", f"IMA's list (PCR {IMA_PCR}) is not used: {error}"))
        return files, None


def _certificates(path: Path) -> tuple[bytes, ...]:
    data = read_file(path, limit=2 * _CERTIFICATES_MAX * limits.CERT_MAX, what="platform's certificates")
    try:
        found = tuple(each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(data))
    except (ValueError, x509.InvalidVersion) as error:
        raise MalformedEvidence(
            Code.CERT_MALFORMED,
            "no certificates in PEM",
            where=str(path),
            hint="on Azure: the fields vcekCert and certificateChain of what the metadata service gives, one after the "
            "other",
        ) from error
    if len(found) > _CERTIFICATES_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE, "too many certificates", where=str(path), expected=f"<= {_CERTIFICATES_MAX}", got=len(found)
        )
    return found


def _item(path: Path) -> CollateralItem:
    data = read_file(path, limit=2 * limits.COLLATERAL_ITEM_MAX, what="collateral")
    if data.lstrip().startswith(_PEM_CRL):
        try:
            data = x509.load_pem_x509_crl(data).public_bytes(Encoding.DER)
        except (ValueError, x509.InvalidVersion) as error:
            raise MalformedEvidence(
                Code.CRL_INVALID, "no revocation list in PEM", where=str(path), hint=_COLLATERAL_HINT
            ) from error
    if len(data) > limits.COLLATERAL_ITEM_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE,
            "collateral is too large",
            where=str(path),
            expected=f"<= {limits.COLLATERAL_ITEM_MAX} bytes",
        )
    if data.startswith(_SEQUENCE):
        return CollateralItem("crl", data)
    if data.lstrip().startswith(_OBJECT):
        return CollateralItem("dcap", data)
    raise MalformedEvidence(
        Code.FIELD_RANGE,
        "neither a revocation list nor DCAP collateral",
        where=str(path),
        expected="DER, PEM or JSON",
        got=data[:8] or "nothing",
        hint=_COLLATERAL_HINT,
    )


def _argument(parse: Callable[[str], _Value]) -> Callable[[str], _Value]:
    def checked(text: str) -> _Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked
