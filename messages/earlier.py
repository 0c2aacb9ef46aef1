"""Complete documents that earlier versions wrote: manifests on disk and recorded events.

In 0.1 the kind of a variant was the first part of its name: `layer` of `layer-4`. Now it is a field. Until
0.2 the messages had version 1. Only files are completed; the parts of a running system have the same version.
"""

from typing import Any

from pydantic_core import from_json, to_json

from splitplace.messages.application import VARIANT_KINDS
from splitplace.messages.base import PROTOCOL_VERSION

_EARLIER_VERSION = 1


def complete_manifest(text: bytes) -> bytes:
    """Return a manifest in which every variant has its kind, if its name tells it."""
    return _complete(text, "variants", "name")


def complete_decision(event: dict[str, Any]) -> bytes:
    """Return a recorded `TaskDecided` of this version.

    Every alternative has its kind, if the variant's name tells it.
    """
    return _complete(complete_event(event), "alternatives", "variant")


def complete_event(event: dict[str, Any]) -> bytes:
    """Return a recorded event as one of this version. What it says has not changed."""
    is_earlier = event.get("version") == _EARLIER_VERSION
    return to_json(event | {"version": PROTOCOL_VERSION} if is_earlier else event)


def _complete(text: bytes, key: str, name_key: str) -> bytes:
    """Return the text unchanged where nothing is missing or where it is not understood."""
    try:
        document: Any = from_json(text)
    except ValueError:
        return text
    entries = document.get(key) if isinstance(document, dict) else None
    incomplete = [
        entry
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and "kind" not in entry
    ]
    for entry in incomplete:
        kind = str(entry.get(name_key)).partition("-")[0]
        if kind in VARIANT_KINDS:
            entry["kind"] = kind
    return to_json(document) if incomplete else text
