"""What a worker says of a server that it cannot reach."""

import grpc
import pytest

from plait_worker.stream_end import StreamEnd

_FAILED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:7480: "


@pytest.mark.parametrize(
    ("details", "said"),
    [
        (
            "Custom verification check failed with error: UNAUTHENTICATED: Hostname Verification Check failed.",
            "does not name this host",
        ),
        (
            "Tls handshake failed: SSL_ERROR_SSL: OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: x",
            "PLAIT_TLS_CA",
        ),
        ("Socket closed", "https://HOST:PORT"),
        ("Connection refused", "Connection refused"),
    ],
)
def test_the_end_of_a_connection_is_told_with_its_remedy(details: str, said: str) -> None:
    assert said in str(StreamEnd(code=grpc.StatusCode.UNAVAILABLE, details=_FAILED + details))
