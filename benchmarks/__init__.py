"""Commands that measure the figures of the README and of docs/performance.md, and print them."""
