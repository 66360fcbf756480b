"""Writes the JSON Schemas of what others read from us into a folder."""

import json
from pathlib import Path

from schemas import delivery, topics
from schemas.base import InternalRecord

PUBLISHED: dict[str, type[InternalRecord]] = {
    **topics.VALUES,
    "billing.webhook.v1": delivery.DeliveryBody,
    "usage.alert.v1": delivery.AlertBody,
}
"""File name without its ending to the contract behind it."""


def render() -> dict[str, str]:
    """Return each published schema as text, by file name."""
    texts = {}
    for name, contract in sorted(PUBLISHED.items()):
        schema = contract.model_json_schema(by_alias=True, mode="serialization")
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        texts[f"{name}.json"] = json.dumps(schema, indent=2, sort_keys=True) + "\n"
    return texts


def write(folder: Path) -> list[Path]:
    """Write all of them into `folder`, made where it is missing; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in render().items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths
