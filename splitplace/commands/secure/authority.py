"""The certificate authority of a system and the broker's certificate, made with `cryptography`.

Elliptic curves (P-256), as every TLS library of the last ten years knows them. The authority signs the
broker's certificate and nothing else: users have passwords. Its only other signature is for the authority
that follows it: so devices that trust only the old authority believe what the new one has signed.
"""

import datetime as dt
import hashlib
import secrets
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
_CROSSING = "crossing.pem"
_BACKDATED = dt.timedelta(days=1)
"""For devices whose clocks are a little behind."""


class AuthorityError(SplitPlaceError):
    """The authority's files cannot be used."""


class Authority:
    """A certificate authority with its key, in a folder: `ca.pem` and `ca.key`.

    While it takes the place of another, `crossing.pem` is its key as signed by the other.
    """

    def __init__(
        self,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        crossing: x509.Certificate | None = None,
    ) -> None:
        self._certificate, self._key, self._crossing = certificate, key, crossing

    @classmethod
    def new(cls) -> "Authority":
        """Draw a key and sign its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_self_signed(_new_name(), key), key)

    def successor(self) -> "Authority":
        """Return a new authority that is believed by those who trust this one, too.

        Raises AuthorityError: it takes the place of another itself, or was not made for this.
        """
        if self._crossing is not None:
            raise AuthorityError(
                "the authority is being replaced already: finish that first (splitplace secure rotate "
                "authority --finish)"
            )
        basic = self._certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        if basic.path_length == 0:
            raise AuthorityError(
                "the authority of this system was made by an earlier version and may not sign another: move "
                "the folder away, secure the system anew, and let every device join again (docs/security.md)"
            )
        subject, key = _new_name(), ec.generate_private_key(ec.SECP256R1())
        left = self._certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
        crossing = (
            _builder(subject, self._certificate.subject, key, left.days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return Authority(_self_signed(subject, key), key, crossing)

    def finished(self) -> "Authority":
        """Return this authority, believed only by those who trust itself."""
        return Authority(self._certificate, self._key)

    @property
    def is_taking_over(self) -> bool:
        """Whether those who trust the earlier authority still believe it."""
        return self._crossing is not None

    @classmethod
    def load(cls, folder: Path) -> "Authority":
        """Read the files of a folder. Raises AuthorityError."""
        try:
            certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
            file = folder / _CROSSING
            crossing = x509.load_pem_x509_certificate(file.read_bytes()) if file.is_file() else None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a key in PEM"
            raise AuthorityError(
                f"cannot use the authority in {folder}: {reason} (its key stays where splitplace secure "
                "init ran)"
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AuthorityError(f"the key in {folder} is of another kind than SplitPlace makes")
        if certificate.public_key() != key.public_key():
            raise AuthorityError(f"certificate and key in {folder} do not belong together")
        return cls(certificate, key, crossing)

    def save(self, folder: Path) -> None:
        """Write all files; only their owner may read the key. Raises OSError."""
        if self._crossing is None:
            (folder / _CROSSING).unlink(missing_ok=True)
        else:
            replace_file(folder / _CROSSING, _pem(self._crossing).encode(), mode=ONLY_OWNER)
        replace_file(folder / "ca.key", _private(self._key), mode=ONLY_OWNER)
        replace_file(folder / "ca.pem", self.pem.encode(), mode=ONLY_OWNER)

    @property
    def pem(self) -> str:
        """The certificate, which is no secret."""
        return _pem(self._certificate)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate (DER)."""
        return hashlib.sha256(self._certificate.public_bytes(serialization.Encoding.DER)).digest()

    def sign_broker(self, hosts: Sequence[str], folder: Path) -> None:
        """Make a key and a certificate for a broker of these names: `broker.pem` and `broker.key`.

        The certificate is followed by the authority's, so that a newcomer can compare its fingerprint, and by
        what the earlier authority has signed.
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
        crossing = "" if self._crossing is None else _pem(self._crossing)
        chain = _pem(certificate) + crossing + self.pem
        replace_file(folder / "broker.key", _private(key), mode=ONLY_OWNER)
        replace_file(folder / "broker.pem", chain.encode(), mode=ONLY_OWNER)


def _self_signed(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """An authority's own certificate. It may sign one authority more: the one that follows it."""
    return (
        _builder(name, name, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _new_name() -> x509.Name:
    """Two authorities of one system have different names, so that TLS libraries tell them apart."""
    return _name(f"SplitPlace authority {secrets.token_hex(4)}")


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


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


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
