"""
Neither the proxies of the machine nor its authorities, for all tests of this folder.
"""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    """Leave out the proxies of the machine, and its authorities, which OpenSSL reads for each receiver."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
