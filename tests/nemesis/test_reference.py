"""The nemesis knows the right answers of the shipped networks."""

import json

from nemesis.__main__ import SHIPPED
from nemesis.samples import load


def test_every_variant_of_a_shipped_network_mostly_agrees_with_the_labels() -> None:
    application = load(SHIPPED)["mnist"]
    manifest = json.loads((application.folder / "manifest.json").read_text(encoding="utf-8"))
    whole = application.opinions("whole", partial=False)
    for variant in manifest["variants"]:
        opinions = application.opinions(variant["name"], partial=False)
        agreeing = sum(bool(a.classes & b.classes) for a, b in zip(whole, opinions, strict=True))
        assert agreeing >= 0.95 * len(whole), variant["name"]


def test_with_missing_branches_more_answers_are_right() -> None:
    application = load(SHIPPED)["mnist"]
    full = application.opinions("semantic", partial=False)
    partial = application.opinions("semantic", partial=True)
    assert sum(len(p.classes) for p in partial) > sum(len(f.classes) for f in full)
