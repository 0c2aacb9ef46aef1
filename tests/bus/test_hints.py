"""An error of a connection says what to do next."""

import ssl

import pytest

from splitplace.bus.hints import hint

PLAIN, TLS = "mqtt://broker.lan:1883", "mqtts://broker.lan"


@pytest.mark.parametrize(
    ("error", "broker", "expected"),
    [
        ("[Errno -2] Name or service not known", PLAIN, "is the name broker.lan right?"),
        ("[Errno -3] Temporary failure in name resolution", PLAIN, "try the IP address"),
        (ConnectionRefusedError(111, "Connection refused"), PLAIN, "start one: splitplace broker"),
        (OSError(113, "No route to host"), PLAIN, "in the broker's network"),
        ("Operation timed out", PLAIN, "mqtts://"),
        ("closed before the broker accepted it", PLAIN, "does the broker want TLS"),
        ("[Errno 104] Connection reset by peer", TLS, "if not, use mqtt://"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), TLS, "if not, use mqtt://"),
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate",
            TLS,
            "(splitplace secure add node), others name the present --credentials or --ca-file",
        ),
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] Hostname mismatch, certificate is not valid for 'broker.lan'",
            TLS,
            "is not for broker.lan",
        ),
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate is not yet valid",
            TLS,
            "clock",
        ),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert", TLS, "--certificate and --key"),
        ("[code:135] Not authorized", PLAIN, "--username"),
    ],
)
def test_an_error_of_a_connection_has_a_next_step(
    error: BaseException | str, broker: str, expected: str
) -> None:
    assert expected in hint(error, broker)
