"""Tests of what other people's packages do with multiprocessing: each says which package it needs."""

import importlib.util
import unittest


def needs(*modules):
    """Skips, by name, what cannot run because a package is not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return unittest.skipIf(missing, f'not installed: {", ".join(missing)} (packages python3-NAME)')
