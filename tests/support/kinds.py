"""Kinds of made-up variants."""

from splitplace.messages.application import VARIANT_KINDS, VariantKind


def kind_named(name: str) -> VariantKind:
    """Return the kind that a test's variant is named after, such as `layer` for `layer-4`; else `layer`."""
    first = name.partition("-")[0]
    return next((kind for kind in VARIANT_KINDS if kind == first), "layer")
