"""Thousands of random inputs against the whole program: see README.md; short versions are in test_short.py."""
