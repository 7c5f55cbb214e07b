from __future__ import annotations

import pytest

from server.errors import StartupError
from server.listening import address, listen


def test_a_taken_port_is_explained() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(StartupError, match=rf"port {port} \(.*\): choose another --port"):
            listen("127.0.0.1", port)


def test_an_ipv6_address_is_written_in_brackets() -> None:
    with listen("::1", 0) as listener:
        assert address(listener).startswith("http://[::1]:")
