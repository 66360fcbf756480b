"""An authority of this machine's own, and what it signs: for services and tests that speak TLS."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from infra.local import process

_PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the authority has signed, as files in PEM."""

    authority: Path
    server: Path
    """Certificate and key."""
    client: Path
    """Certificate and key of a client."""


def make(folder: Path, *names: str, client: str = "tollgate") -> Certificates:
    """Make them in `folder`; the server's is for `names`, else for this machine's, and the client's common name given.

    Where they were made in `folder` before, return those.
    """
    import trustme  # noqa: PLC0415 - only who develops has it

    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "client.pem")
    if made.client.exists():
        return made
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(made.authority))
    for file, certificate in {
        made.server: authority.issue_cert(*(names or ("localhost", process.HOST))),
        made.client: authority.issue_cert("tollgate@lab.example", common_name=client),
    }.items():
        key = _key(certificate.private_key_pem.bytes()).private_bytes(*_PKCS8, serialization.NoEncryption())
        chain = b"".join(one.bytes() for one in certificate.cert_chain_pems)
        file.touch(mode=0o600)
        file.write_bytes(key + chain)  # Kafka reads PKCS #8 alone
    return made


def encrypt(file: Path, password: bytes) -> Path:
    """Write the private key of `file` once more, encrypted; return where."""
    encryption = serialization.BestAvailableEncryption(password)
    encrypted = file.with_name(f"{file.stem}-key.pem")
    encrypted.write_bytes(_key(file.read_bytes()).private_bytes(*_PKCS8, encryption))
    return encrypted


def _key(pem: bytes) -> EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, EllipticCurvePrivateKey)
    return key
