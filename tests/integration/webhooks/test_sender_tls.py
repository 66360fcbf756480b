"""What the sender makes of TLS: names as curl has them, and faults that are called what they are."""

import re
import ssl
from pathlib import Path

import pytest

from tests.integration.webhooks.test_sender import Peer, Resolver, certificate, prepared, sending


async def test_a_trailing_dot_is_no_part_of_the_name_in_tls(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "lab.example")
    peer = Peer()
    server.sni_callback = lambda _socket, name, _context: peer.names.append(name)
    async with peer.running(server), sending(Resolver(["127.0.0.1"]), context=client) as sender:
        outcome = await sender.send(prepared(f"https://lab.example.:{peer.port}/"))
    assert (outcome.status_code, peer.names) == (200, ["lab.example"])


@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_receiver_that_wants_a_client_certificate_does_not_seem_to_have_no_name(
    tmp_path: Path, tls: ssl.TLSVersion
) -> None:
    server, client = certificate(tmp_path, "lab.example")
    server.load_verify_locations(tmp_path / "lab.example.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    server.minimum_version = server.maximum_version = tls
    async with Peer().running(server) as peer, sending(Resolver(["127.0.0.1"]), context=client) as sender:
        outcome = await sender.send(prepared(f"https://lab.example:{peer.port}/"))
    assert (outcome.status_code, outcome.final) == (None, False)
    assert "look-up" not in (outcome.error or "")
    # The alert that says so; or, where that was overtaken by the end of the connection, that.
    assert re.search(r"alert|handshake|EOF|reset by peer", outcome.error or "", re.IGNORECASE)
