"""Keeps a lab's own host names to its own keys (contract 6).

Never looks at X-Forwarded-Host. A call costs nothing where no lab has a host name.
"""

from domain import hosts
from proxy.core import keys, replies
from proxy.core.replies import Reply
from proxy.directory import ConfiguredDirectory


class HostWall:
    """`is_strict`: names that are nobody's are refused as well."""

    def __init__(self, directory: ConfiguredDirectory, *, accept_bearer: bool, is_strict: bool) -> None:
        self._directory = directory
        self._accept_bearer = accept_bearer
        self._is_strict = is_strict

    def refusal(self, host: bytes, authorization: bytes | None) -> Reply | None:
        """Return the answer to a call that may not come by this name; None where it may, or has no key at all."""
        directory = self._directory
        if not directory.has_hosts and not self._is_strict:
            return None
        owner = directory.host_owner(hosts.named(host.decode("latin-1")))
        if owner is None:
            return replies.misdirected() if self._is_strict else None
        sent = keys.read(authorization, accept_bearer=self._accept_bearer)
        key = None if isinstance(sent, keys.BadCredential) else directory.key(sent.prefix)
        return None if key is None or key.workspace_id == owner else replies.unknown_key()
