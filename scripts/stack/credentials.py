"""API keys and the TLS certificate: made once, kept outside build/, never shown but by their path."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import secrets
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stack.config import Gateway
from stack.errors import InputError, Problem, StackError

CERTIFICATE, PRIVATE_KEY = "tls/tls.crt", "tls/tls.key"
VALID_DAYS, RENEW_DAYS = 397, 30
MINIMUM_KEY_LENGTH = 16


def key_file(state: Path, name: str) -> Path:
    """Where the API key of a client is."""
    return state / "secrets" / "api-keys" / name


def ensure_keys(state: Path, names: Sequence[str]) -> list[str]:
    """Make the keys that are missing, 256 random bits each; the names of those made."""
    made = []
    for name in names:
        path = key_file(state, name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(path, b"sk-" + secrets.token_urlsafe(32).encode() + b"\n")
            made.append(name)
    return made


def key_hashes(state: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 (hex) of each key that is there -> client name. Raises StackError for one that is unusable."""
    found: dict[str, str] = {}
    for name in names:
        path = key_file(state, name)
        if not path.exists():
            continue
        try:
            key = path.read_text().strip()
        except OSError as error:
            raise StackError(f"{path}: the API key cannot be read: {error.strerror}") from None
        if len(key) < MINIMUM_KEY_LENGTH or any(char.isspace() for char in key):
            raise StackError(
                f"{path}: not an API key (one word of at least {MINIMUM_KEY_LENGTH} characters is needed);"
                " delete the file and `make up` makes a new one"
            )
        found[hashlib.sha256(key.encode()).hexdigest()] = name
    return found


def check_certificate(gateway: Gateway, root: Path, shown: str) -> None:
    """The user's own certificate and key: readable, belonging together, not expired. Raises InputError."""
    if gateway.tls is None:
        return
    certificate, key = root / gateway.tls.certificate, root / gateway.tls.key
    problems = [
        Problem(f"gateway.tls.{name}", f"{path} is not a readable file")
        for name, path in (("certificate", certificate), ("key", key))
        if not (path.is_file() and os.access(path, os.R_OK))
    ]
    if not problems:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password="")
        except ssl.SSLError as error:
            what = f"certificate and key do not work together: {error.reason or error}"
            problems.append(Problem("gateway.tls", what))
        else:
            ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
            if ends < datetime.datetime.now(datetime.UTC):
                problems.append(Problem("gateway.tls.certificate", f"expired on {ends:%Y-%m-%d}"))
    if problems:
        raise InputError(shown, problems)


def ensure_certificate(state: Path, gateway: Gateway, root: Path) -> bool:
    """Put certificate and key where nginx reads them; True when they changed.

    Self-signed ones are made again when they end within RENEW_DAYS or name another server.
    """
    certificate = state / CERTIFICATE
    current = certificate.read_bytes() if certificate.is_file() and (state / PRIVATE_KEY).exists() else None
    if gateway.tls is not None:
        wanted = (root / gateway.tls.certificate).read_bytes()
        if wanted == current:
            return False
        key = (root / gateway.tls.key).read_bytes()
    elif current is not None and _still_good(current, _names(gateway)):
        return False
    else:
        wanted, key = _self_signed(_names(gateway))
    certificate.parent.mkdir(parents=True, exist_ok=True)
    write_private(state / PRIVATE_KEY, key)
    write_private(certificate, wanted)
    certificate.chmod(0o644)
    return True


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0400 in one step: it is never there half-written or readable by others."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    partial.rename(path)


def _names(gateway: Gateway) -> list[str]:
    listen = [] if gateway.listen == "0.0.0.0" else [gateway.listen]
    return list(dict.fromkeys([gateway.server_name, *listen, "localhost", "127.0.0.1"]))


def _still_good(pem: bytes, wanted: Sequence[str]) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=RENEW_DAYS)
    return certificate.not_valid_after_utc > soon and all(_general_name(name) in names for name in wanted)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _self_signed(names: Sequence[str]) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        # clients are told to trust this very file: it has to be allowed to vouch for itself
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
