"""Commands that measure what the README and docs/performance.md claim, each printing what it measured."""
