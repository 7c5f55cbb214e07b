from __future__ import annotations

import json
import socket
import threading

import pytest

from benchmarks.stream_clients import Stream, run

FRAME = b'data: {"choices":[{"delta":{"content":"x"}}],"usage":null}\n\n'
END = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_is_cut_by_reads_is_found(size: int) -> None:
    with socket.socket() as unused:
        stream = Stream(unused)
        data = FRAME + FRAME + END
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        ended = [stream.take(piece, float(now)) for now, piece in enumerate(pieces, start=1)]
    assert ended == [False] * (len(pieces) - 1) + [True]
    assert stream.tokens == 2
    assert stream.frames == 3
    assert list(stream.gaps) == [1.0] * (len(pieces) - 1)


def test_all_clients_are_answered_and_counted() -> None:
    asked: list[bytes] = []

    def serve(listener: socket.socket, connections: int) -> None:
        for _ in range(connections):
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(65536))
                connection.sendall(FRAME + FRAME)
                connection.sendall(END)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener, 3))
        server.start()
        seen = run(f"http://127.0.0.1:{listener.getsockname()[1]}", "m", clients=3, tokens=2)
        server.join()
    assert (seen["tokens"], seen["frames"]) == (6, 9)
    body = json.loads(asked[0].partition(b"\r\n\r\n")[2])
    assert body["max_tokens"] == 2 and body["stream"] is True
