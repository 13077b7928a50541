"""The keys of the configuration, and the values in force, as they are written down: in tables, and in TOML."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from weighbridge.proto import strict
from weighbridge.verifier.settings.layers import about, keys_of, variable
from weighbridge.verifier.settings.model import Judging, Settings, default_of

if TYPE_CHECKING:
    from weighbridge.verifier.settings.layers import Loaded, Origin

__all__ = ["Row", "described", "keys_document", "markdown", "written"]


@dataclass(frozen=True, slots=True)
class Row:
    """One key, the value in force, and where that comes from."""

    key: str
    value: strict.JsonValue
    origin: Origin


def described(loaded: Loaded) -> tuple[Row, ...]:
    """All keys, in the order of the table; what tenants say themselves last."""
    rows: list[Row] = []
    for section, name in keys_of():
        origin = loaded.origin(section, name)
        value = default_of(section, name)
        if origin.kind != "default":
            value = getattr(getattr(loaded.settings, section), name)
        rows.append(Row(f"{section}.{name}", _plain(value), origin))
    for number, tenant in enumerate(loaded.settings.tenants):
        rows += [
            Row(f"tenants.{number}.{name}", _plain(getattr(tenant, name)), loaded.origin("tenants", number, name))
            for name in Judging.model_fields
            if name in tenant.model_fields_set
        ]
    return tuple(rows)


def written(value: strict.JsonValue) -> str:
    """The value as TOML writes it; what there is none of, which TOML cannot say, as a dash."""
    return "-" if value is None else strict.json_encode(value).decode()


def markdown() -> str:
    """The table of all keys."""
    parts: list[str] = []
    for section, field in Settings.model_fields.items():
        if section == "tenants":
            parts.append(f"### `[[tenants]]`\n\n{_meaning(Judging)}\n\nThe keys are those of `[judging]`.\n")
            continue
        model = cast("type[BaseModel]", field.annotation)
        rows = ["| key | type | default | environment | meaning |", "|---|---|---|---|---|"]
        for name, key in model.model_fields.items():
            default = _plain(default_of(section, name))
            told = about(key)
            option = f" (`{told.option.replace(', ', '`, `')}`)" if told.option else ""
            rows.append(
                f"| `{name}` | {told.shape} | {'' if default is None else f'`{written(default)}`'} "
                f"| `{variable((section, name))}` | {key.description}{option} |"
            )
        parts.append(f"### `[{section}]`\n\n{_meaning(model)}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def keys_document() -> strict.JsonObject:
    """The same for programs."""
    listed: list[strict.JsonValue] = [
        {
            "section": section,
            "key": name,
            "type": about(field).shape,
            "default": _plain(default_of(section, name)),
            "environment": variable((section, name)),
            "option": about(field).option or None,
            "meaning": field.description,
        }
        for (section, name), field in keys_of().items()
    ]
    return {"schema": "weighbridge/config-keys/v1", "keys": listed}


def _meaning(model: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(model) or "").replace("``", "`").split())


def _plain(value: Any) -> strict.JsonValue:  # noqa: ANN401 - whatever a key's value may be
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return round(value) if value.is_integer() else str(value)
        case Path():
            return str(value)
        case tuple():
            return [_plain(item) for item in cast("tuple[object, ...]", value)]
        case _:
            return str(value)
