"""The workshop, offline: trains networks, splits them, measures the fragments and packs applications."""
