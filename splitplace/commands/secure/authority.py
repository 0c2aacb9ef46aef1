"""The certificate authority of a system and the broker's certificate, made with `cryptography`.

Elliptic curves (P-256), as every TLS library of the last ten years knows them. The authority signs the
broker's certificate and nothing else: users have passwords.
"""

import datetime as dt
import hashlib
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from splitplace.errors import SplitPlaceError
from splitplace.storage.credentials import ONLY_OWNER
from splitplace.storage.replace import replace_file

AUTHORITY_DAYS = 3650
BROKER_DAYS = 397
_BACKDATED = dt.timedelta(days=1)
"""For devices whose clocks are a little behind."""


class AuthorityError(SplitPlaceError):
    """The authority's files cannot be used."""


class Authority:
    """A certificate authority with its key, in a folder: `ca.pem` and `ca.key`."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key

    @classmethod
    def new(cls) -> "Authority":
        """Draw a key and sign its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("SplitPlace authority")
        certificate = (
            _builder(name, name, key, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, folder: Path) -> "Authority":
        """Read the files of a folder. Raises AuthorityError."""
        try:
            certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a key in PEM"
            raise AuthorityError(
                f"cannot use the authority in {folder}: {reason} (its key stays where splitplace secure "
                "init ran)"
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AuthorityError(f"the key in {folder} is of another kind than SplitPlace makes")
        return cls(certificate, key)

    def save(self, folder: Path) -> None:
        """Write both files; only their owner may read the key. Raises OSError."""
        replace_file(folder / "ca.key", _private(self._key), mode=ONLY_OWNER)
        replace_file(folder / "ca.pem", self.pem.encode(), mode=ONLY_OWNER)

    @property
    def pem(self) -> str:
        """The certificate, which is no secret."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate (DER)."""
        return hashlib.sha256(self._certificate.public_bytes(serialization.Encoding.DER)).digest()

    def sign_broker(self, hosts: Sequence[str], folder: Path) -> None:
        """Make a key and a certificate for a broker of these names: `broker.pem` and `broker.key`.

        The certificate is followed by the authority's, so that a newcomer can compare its fingerprint.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(hosts[0]), self._certificate.subject, key, BROKER_DAYS)
            .add_extension(x509.SubjectAlternativeName(list(map(_alternative, hosts))), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        chain = certificate.public_bytes(serialization.Encoding.PEM) + self.pem.encode()
        replace_file(folder / "broker.key", _private(key), mode=ONLY_OWNER)
        replace_file(folder / "broker.pem", chain, mode=ONLY_OWNER)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
