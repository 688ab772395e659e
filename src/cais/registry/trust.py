"""Whom a client of https trusts."""

from __future__ import annotations

import ssl


def verifying_context() -> ssl.SSLContext:
    """Return TLS settings that verify servers by the machine's authorities, as Docker does.

    From Python 3.13 on, the default refuses authorities whose certificate states no key usage; that
    of Docker's manual is one ("Protect the Docker daemon socket", ``openssl req -x509``).
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
