"""Reads JSON documents that somebody wrote by hand: strict, with the place of the first fault. No IO."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["Audience", "Document", "Tenant", "read_document"]

_Model = TypeVar("_Model", bound=BaseModel)

Tenant = Annotated[str, Field(min_length=1, max_length=64)]
"""As in requirements and terms."""
Audience = Annotated[str, Field(min_length=1, max_length=256)]
"""As in requirements and terms."""


class Document(BaseModel):
    """Of exactly the members that are declared, each of exactly its type; never changed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def read_document(model: type[_Model], data: bytes, *, what: str, schema: str) -> _Model:
    """The document in ``data``.

    Args:
        model: what it should be.
        data: untrusted JSON.
        what: of it, for people.
        schema: that it names itself.

    Raises:
        MalformedEvidence: ``FIELD_RANGE`` with the place, ``FIELD_MISSING`` without a schema, or a JSON code.
    """
    document = strict.json_decode(data, what=what, limit=limits.REFERENCE_SET_MAX)
    if isinstance(document, dict) and "schema" not in document:
        raise MalformedEvidence(
            Code.FIELD_MISSING, "the document does not say what it is", where="schema", expected=schema
        )
    try:
        return model.model_validate_json(strict.json_encode(document))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or what
        raise MalformedEvidence(Code.FIELD_RANGE, first["msg"], where=place) from error
