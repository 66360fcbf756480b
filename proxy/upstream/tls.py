"""Says whom the proxy trusts to be an upstream.

Never trusts less than the system does: its own roots, or certifi's where it has none.
"""

import ssl
from pathlib import Path

import certifi


def client_context() -> ssl.SSLContext:
    """Return what upstreams' certificates and host names are checked with.

    `SSL_CERT_FILE` and `SSL_CERT_DIR` name other roots than the system's, as everywhere with OpenSSL.
    """
    context = ssl.create_default_context()
    if not _has_roots(ssl.get_default_verify_paths()):
        context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def _has_roots(paths: ssl.DefaultVerifyPaths) -> bool:
    """Return whether the system's file or folder of roots is there and not empty."""
    if paths.cafile is not None and Path(paths.cafile).stat().st_size > 0:
        return True
    return paths.capath is not None and any(Path(paths.capath).iterdir())
