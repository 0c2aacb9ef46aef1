"""Tests of the compressed variants."""
