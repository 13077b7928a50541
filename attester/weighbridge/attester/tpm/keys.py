"""Where a host's attestation key and endorsement key come from.

===============  ===================================================================================================
``endorsement``  a P-256 primary key of the endorsement hierarchy: the same until that hierarchy's seed changes
``srk``          a P-256 key below the storage root key, kept in a file: gone for good when the TPM is cleared
``handle``       a key that somebody made persistent: Azure's paravisor, or the owner
``gce``          a primary key of the endorsement hierarchy by a template that Google stored with its certificate
===============  ===================================================================================================
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from weighbridge.attester.durable import read_file, write_file
from weighbridge.attester.tpm.interface import EndorsementKey
from weighbridge.attester.tpm.nv import split_certificates, trim_certificate
from weighbridge.attester.tpm.options import AZURE_AK_HANDLE
from weighbridge.proto import cbor
from weighbridge.proto.endorsement import AkCertificateEndorsement, EkEndorsement, VtpmReportEndorsement
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.tpm import public as publics
from weighbridge.proto.tpm.constants import Hierarchy, ObjectAttributes
from weighbridge.proto.tpm.names import qualified_name_of_child, qualified_name_of_primary
from weighbridge.proto.tpm.templates import (
    ENDORSEMENT_KEYS,
    EndorsementTemplate,
    attestation_key_template,
    storage_root_key_template,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from weighbridge.attester.tpm.esapi import Esapi, Loaded
    from weighbridge.attester.tpm.options import TpmOptions
    from weighbridge.proto.endorsement import Endorsement

__all__ = ["find_endorsement_key", "load_ak", "loaded_ek", "make_endorsement"]

_NV_FIRST: Final = 0x01000000
# TCG EK Credential Profile v2.5 rev. 2 §2.2.1.5.2: EK certificate chains.
_CHAIN_INDICES: Final = range(0x01C00100, 0x01C00200)
# TCG TPM v2.0 Provisioning Guidance 1.0 §7.8.
_SRK_HANDLE: Final = 0x81000001
# Azure's paravisor: its report.
_HCL_REPORT_INDEX: Final = 0x01400001
# Google's: template and certificate, P-256 preferred (go-tpm-tools client/handles.go).
_GCE_KEYS: Final = ((0x01C10003, 0x01C10002), (0x01C10001, 0x01C10000))
_CERTIFICATES_MAX: Final = 4
_FILE_TYPE: Final = "weighbridge/attestation-key/v1"
_FILE_MAX: Final = 8 * 1024
_A = ObjectAttributes


# -- attestation keys -------------------------------------------------------------------------------------------------


def load_ak(esapi: Esapi, options: TpmOptions) -> tuple[Loaded, bytes | None]:
    """The attestation key, and the TPMT_PUBLIC of its parent where that is known.

    Raises:
        EnvironmentFault: ``TPM_FAILED`` if there is no such key or it is none; a code of files.
    """
    match options.ak.kind:
        case "endorsement":
            return esapi.create_primary(Hierarchy.ENDORSEMENT, attestation_key_template()), None
        case "srk":
            if options.key_file is None:
                raise ValueError("an attestation key below the storage root key needs a file")
            return _below_srk(esapi, options.key_file)
        case "handle":
            return _persistent(esapi, options.ak.handle or AZURE_AK_HANDLE)
        case "gce":
            template, _ = _gce_indices(esapi)
            key = esapi.create_primary(Hierarchy.ENDORSEMENT, esapi.nv_read(template))
            return _fit(esapi, key, f"the template at {template:#x}"), None


def _persistent(esapi: Esapi, handle: int) -> tuple[Loaded, bytes | None]:
    key = _fit(esapi, _at(esapi, handle), f"the key at {handle:#x}")
    if _SRK_HANDLE not in esapi.handles(_SRK_HANDLE):
        return key, None
    # A parent is told to the verifier only if the TPM says that it is one: the name of the key bears that out.
    with esapi.using(esapi.persistent(_SRK_HANDLE)) as kept:
        try:
            parent, name = publics.parse(kept.public), publics.parse(key.public).name
        except MalformedEvidence:
            return key, None
        above = qualified_name_of_primary(Hierarchy.OWNER, parent.name)
        return key, kept.public if key.qualified_name == qualified_name_of_child(above, name) else None


def _fit(esapi: Esapi, key: Loaded, what: str) -> Loaded:
    """``key``, if it is one by which a verifier could believe a quote."""
    try:
        public = publics.parse(key.public)
        if public.attributes & (_A.RESTRICTED | _A.SIGN | _A.DECRYPT) == _A.RESTRICTED | _A.SIGN:
            public.signing_algorithm()
            return key
        reason = "it is no restricted signing key"
    except MalformedEvidence as error:
        reason = error.message
    esapi.release(key)
    raise EnvironmentFault(
        Code.TPM_FAILED,
        f"{what} is no attestation key: {reason}",
        hint="Choose another with --ak: a restricted signing key with a fixed scheme, P-256, P-384 or RSA-2048.",
    )


def _below_srk(esapi: Esapi, path: Path) -> tuple[Loaded, bytes]:
    """The key that ``path`` holds; made and written there if there is no such file."""
    if not path.exists():
        with _storage_root_key(esapi) as parent:
            public, private = esapi.create(parent, attestation_key_template())
            write_file(path, cbor.encode({0: _FILE_TYPE, 1: parent.public, 2: public, 3: private}))
    parent_public, public, private = _stored(path)
    with _storage_root_key(esapi, parent_public) as parent:
        if parent.public != parent_public:
            raise EnvironmentFault(
                Code.TPM_FAILED,
                "the attestation key was made below another storage root key: the TPM was cleared, or exchanged",
                where=str(path),
                hint="That key is gone for good. Delete the file: the next session has a new one, which verifiers see.",
            )
        return esapi.load(parent, public, private), parent_public


def _stored(path: Path) -> tuple[bytes, bytes, bytes]:
    """Public area of the parent, public area, and private part that only the parent can read."""
    what = "attestation key"
    try:
        data = read_file(path, limit=_FILE_MAX, what=what)
        fields = cbor.read_map(cbor.decode(data, limit=_FILE_MAX, what=what), where=what)
        kind, parts = fields.text(0), (fields.octets(1), fields.octets(2), fields.octets(3))
        fields.end()
        if kind == _FILE_TYPE:
            return parts
        reason = f"it is of another version: {kind}"
    except MalformedEvidence as error:
        reason = str(error)
    raise EnvironmentFault(
        Code.STATE_CORRUPT,
        f"the attestation key cannot be read: {reason}",
        where=str(path),
        hint="Restore the file, or delete it: the next session has a new key, which verifiers see.",
    )


@contextmanager
def _storage_root_key(esapi: Esapi, wanted: bytes | None = None) -> Generator[Loaded]:
    """The owner's storage key: where it is kept if that is the ``wanted`` one, else made by every owner's template."""
    if _SRK_HANDLE in esapi.handles(_SRK_HANDLE):
        with esapi.using(esapi.persistent(_SRK_HANDLE)) as kept:
            if _is_storage_key(kept.public) if wanted is None else kept.public == wanted:
                yield kept
                return
    with esapi.using(esapi.create_primary(Hierarchy.OWNER, storage_root_key_template())) as made:
        yield made


def _is_storage_key(public: bytes) -> bool:
    wanted = _A.FIXED_TPM | _A.FIXED_PARENT | _A.RESTRICTED | _A.DECRYPT
    try:
        return publics.parse(public).attributes & (wanted | _A.SIGN) == wanted
    except MalformedEvidence:
        return False


# -- why they are to be believed --------------------------------------------------------------------------------------


def make_endorsement(esapi: Esapi, options: TpmOptions) -> Endorsement:
    """What this host can show for its attestation key.

    Raises:
        EnvironmentFault: ``TPM_FAILED`` if that is missing.
    """
    if options.ak.kind == "gce":
        _, certificate = _gce_indices(esapi)
        return AkCertificateEndorsement(
            certificate=trim_certificate(esapi.nv_read(certificate)),
            intermediates=options.certificates[:_CERTIFICATES_MAX],
        )
    if options.ak.handle == AZURE_AK_HANDLE and _HCL_REPORT_INDEX in esapi.handles(_NV_FIRST):
        if options.td_quote is None and not options.certificates:
            raise EnvironmentFault(
                Code.TPM_FAILED,
                "the paravisor's report is of no use without what the processor's maker says of it",
                where=f"{_HCL_REPORT_INDEX:#x}",
                hint="On SEV-SNP: --platform-certificates with what http://169.254.169.254/metadata/THIM/amd/"
                "certification gives; on TDX: --td-quote. See docs/operating.md.",
            )
        return VtpmReportEndorsement(
            report=esapi.nv_read(_HCL_REPORT_INDEX),
            quote=options.td_quote,
            certificates=() if options.td_quote is not None else options.certificates[:_CERTIFICATES_MAX],
        )
    _, key = find_endorsement_key(esapi, options)
    return EkEndorsement(
        public=key.public,
        certificate=key.certificate,
        intermediates=(*key.intermediates, *options.certificates)[:_CERTIFICATES_MAX],
    )


def find_endorsement_key(esapi: Esapi, options: TpmOptions) -> tuple[EndorsementTemplate, EndorsementKey]:
    """The endorsement key that the TPM has a certificate for, and the template that it is made by.

    Raises:
        EnvironmentFault: ``TPM_FAILED`` if there is none.
    """
    present = esapi.handles(_NV_FIRST)
    templates = [each for each in ENDORSEMENT_KEYS if each.certificate_index in present]
    if not templates:
        raise EnvironmentFault(
            Code.TPM_FAILED,
            "TPM has no certificate for an endorsement key of a kind that is accepted",
            expected=" or ".join(f"{each.name} at {each.certificate_index:#x}" for each in ENDORSEMENT_KEYS),
            hint="Pin the attestation key at the verifier instead, if you know that it is this TPM's: --pinned-ak.",
        )
    template = templates[0]
    if options.ek_handle is not None:
        with esapi.using(_at(esapi, options.ek_handle)) as kept:
            fitting = [each for each in templates if kept.public.startswith(each.parameters())]
        if not fitting:
            raise EnvironmentFault(
                Code.TPM_FAILED,
                f"the key at {options.ek_handle:#x} is not an endorsement key that the TPM has a certificate for",
                expected=" or ".join(each.name for each in templates),
                hint="Leave out --ek-handle: then it is looked for where its profile says, else made.",
            )
        template = fitting[0]
    certificate = trim_certificate(esapi.nv_read(template.certificate_index))
    chain = b"".join(esapi.nv_read(index) for index in sorted(present) if index in _CHAIN_INDICES)
    with loaded_ek(esapi, template, options) as key:
        return template, EndorsementKey(key.public, certificate, split_certificates(chain))


@contextmanager
def loaded_ek(esapi: Esapi, template: EndorsementTemplate, options: TpmOptions) -> Generator[Loaded]:
    """The EK: where it is kept if it is the template's, else made, which takes a second or more for RSA."""
    handle = options.ek_handle or template.persistent_handle
    if handle in esapi.handles(handle):
        with esapi.using(esapi.persistent(handle)) as kept:
            if kept.public.startswith(template.parameters()):
                yield kept
                return
    with esapi.using(esapi.create_primary(Hierarchy.ENDORSEMENT, template.encode())) as made:
        yield made


def _at(esapi: Esapi, handle: int) -> Loaded:
    if handle not in esapi.handles(handle):
        raise EnvironmentFault(
            Code.TPM_FAILED,
            f"TPM has no key at {handle:#x}",
            hint="tpm2_getcap handles-persistent lists those that it has.",
        )
    return esapi.persistent(handle)


def _gce_indices(esapi: Esapi) -> tuple[int, int]:
    present = esapi.handles(_NV_FIRST)
    for template, certificate in _GCE_KEYS:
        if {template, certificate} <= present:
            return template, certificate
    raise EnvironmentFault(
        Code.TPM_FAILED,
        "TPM holds no attestation key of Google's",
        expected=" or ".join(f"{template:#x} and {certificate:#x}" for template, certificate in _GCE_KEYS),
        hint="Is this a Shielded or Confidential VM of Compute Engine? Elsewhere choose another key: --ak.",
    )
