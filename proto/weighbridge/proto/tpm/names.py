"""Names and qualified names of TPM objects (TPM 2.0 Part 1 §16).

A Name is what the TPM calls an object: the hash of its public area behind the hash's identifier. A qualified name
also says under which parents, and so in which hierarchy, the object lives.
"""

from __future__ import annotations

from typing import Final

from weighbridge.proto.tpm.constants import HashAlgorithm, Hierarchy, digest
from weighbridge.proto.tpm.wire import u16, u32

__all__ = ["NAME_MAX", "object_name", "qualified_name_of_child", "qualified_name_of_primary"]

# TPM2B_NAME of the largest hash: identifier and digest (Part 2 §10.5.2, TPMU_NAME).
NAME_MAX: Final = 2 + 64


def object_name(name_algorithm: HashAlgorithm, public_area: bytes) -> bytes:
    """The Name of an object (Part 1 §16, equation 13): ``nameAlg || H(public area)``.

    Args:
        name_algorithm: the object's own ``nameAlg``.
        public_area: the marshalled ``TPMT_PUBLIC``, as the TPM gave it.
    """
    return u16(name_algorithm) + digest(name_algorithm, public_area)


def qualified_name_of_primary(hierarchy: Hierarchy, name: bytes) -> bytes:
    """The qualified name of a primary object: ``nameAlg || H(hierarchy handle || Name)`` (Part 1 §16, equation 14).

    The qualified name of a hierarchy is its handle, so the result tells a primary of one hierarchy from an object
    with the same public area anywhere else.

    Args:
        hierarchy: where the object is a primary.
        name: its Name, made by :func:`object_name`.
    """
    return qualified_name_of_child(u32(hierarchy), name)


def qualified_name_of_child(parent: bytes, name: bytes) -> bytes:
    """The qualified name of an object below another: ``nameAlg || H(parent's qualified name || Name)`` (equation 14).

    Args:
        parent: the parent's qualified name, made by :func:`qualified_name_of_primary` or this function.
        name: the object's Name, made by :func:`object_name`.
    """
    algorithm = HashAlgorithm(int.from_bytes(name[:2]))
    return name[:2] + digest(algorithm, parent, name)
