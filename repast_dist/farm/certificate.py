"""The certificate of a run: a process that holds its private key counts as a worker of the run."""

import dataclasses
import datetime
import ssl
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

# The clocks of nodes may differ; the key itself lives no longer than the workers.
_VALIDITY = datetime.timedelta(days=3650)


@dataclasses.dataclass(frozen=True)
class RunCertificate:
    """A self-signed certificate with its private key, made for the connections of one run.

    Attributes
    ----------
    certificate : str
        X.509, PEM.
    private_key : bytes
        Elliptic curve P-256, PKCS #8, PEM, not encrypted.
    """

    certificate: str
    private_key: bytes = dataclasses.field(repr=False)

    @classmethod
    def make(cls) -> "RunCertificate":
        """Make a new key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "repast_dist run")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _VALIDITY)
            .not_valid_after(now + _VALIDITY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(key, SHA256())
        )
        return cls(
            certificate.public_bytes(Encoding.PEM).decode(),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS context of the end that accepts a connection."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        # Sessions are never resumed, so no tickets are sent into the stream.
        context.num_tickets = 0
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS context of the end that opens a connection."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        """Return a TLS context that presents this certificate and accepts no other."""
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.certificate)
        # The ssl module reads keys from files only; this one has mode 0600 and is deleted at once.
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.private_key + self.certificate.encode())
            file.flush()
            context.load_cert_chain(file.name)
        return context
