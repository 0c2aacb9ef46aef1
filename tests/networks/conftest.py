"""Tests of published networks run where `make networks` has fetched them."""

import os

collect_ignore = [] if os.environ.get("SPLITPLACE_NETWORKS") else ["test_published.py"]
