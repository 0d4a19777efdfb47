"""The client: when it sends, what it notes, how it reads an answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks.answer import RefusedError, read_answer, read_answers
from benchmarks.load import Exchange, Request, exchange

Handler = Callable[[socket.socket, bytes], None]
EVENTS = (
    {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"delta": {"content": "one"}}]},
    {"choices": [{"delta": {"content": " two"}}]},
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
        "timings": {"prompt_ms": 250.0},
    },
)


def sse(*events: object) -> bytes:
    blocks = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    return b"".join([b": a comment\n\n", *blocks, b"data: [DONE]\n\n"])


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        + coded
        + b"0\r\n\r\n"
    )


def whole(status: int, body: object) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(data), data)


def came(*pieces: bytes, cut_off: bool = False) -> Exchange:
    """Return an exchange whose pieces came at 1, 2, ... seconds."""
    timed = [(float(time), piece) for time, piece in enumerate(pieces, 1)]
    return Exchange(Request("/x", b""), 0.5, timed, cut_off)


@contextmanager
def listening(handler: Handler) -> Iterator[int]:
    """Serve each connection with *handler* in a thread of its own; yield the port."""
    threads: list[threading.Thread] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=answer, args=(connection,))
            threads.append(thread)
            thread.start()

    def answer(connection: socket.socket) -> None:
        with connection:
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            assert head.startswith(b"POST ")
            handler(connection, body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=serve)
        acceptor.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(10)
        for thread in threads:
            thread.join(10)


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("reads", [1, 5, 10_000])
def test_events_are_read_however_they_are_cut(size: int, reads: int) -> None:
    data = chunked(sse(*EVENTS), size)
    pieces = [data[at : at + reads] for at in range(0, len(data), reads)]

    answer = read_answer(came(*pieces))

    assert answer.text == "one two"
    assert len(answer.text_times) == 2
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens) == (5, 2, 3)
    assert answer.engine_prompt_seconds == 0.25
    assert answer.ended_at == len(pieces)


def test_an_event_has_the_time_of_the_read_that_completed_it() -> None:
    body = sse(*EVENTS)
    data = chunked(body, 1)
    # Each byte of the body is six, coded.
    within_two = len(data) - len(b"0\r\n\r\n") - 6 * len(body[body.index(b" two") :])

    answer = read_answer(came(data[:within_two], data[within_two:-5], data[-5:]))

    assert answer.text_times == [1.0, 2.0]
    assert answer.first_text_seconds == 0.5
    assert answer.gaps == [1.0]
    assert answer.seconds == 2.5


def test_a_whole_answer_is_one_event() -> None:
    body = {"choices": [{"message": {"content": "hi"}}], "usage": {"prompt_tokens": 4}}

    answer = read_answer(came(whole(200, body)))

    assert answer.text == "hi"
    assert answer.prompt_tokens == 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (whole(400, {"error": {"message": "not supported"}}), "400: not supported"),
        (whole(502, "bad"), '502: "bad"'),
        (chunked(sse({"error": {"message": "worker died"}}), 99), "worker died"),
        (chunked(sse(*EVENTS), 99)[:-5], "broke off"),
        (b"", "broke off"),
    ],
)
def test_errors_and_broken_answers_are_refusals(data: bytes, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        read_answer(came(data))


def test_an_answer_that_the_client_cut_off_is_read_as_far_as_it_came() -> None:
    data = chunked(sse(*EVENTS), 99)

    assert read_answer(came(data[:-5], cut_off=True)).text == "one two"
    assert read_answer(came(cut_off=True)).events == []


def test_requests_are_sent_together_and_their_bodies_arrive() -> None:
    together = threading.Barrier(3)

    def echo(connection: socket.socket, body: bytes) -> None:
        together.wait(10)
        connection.sendall(whole(200, {"usage": {"prompt_tokens": len(body)}}))

    with listening(echo) as port:
        answers = read_answers(exchange(port, [Request("/x", b"a" * n) for n in (1, 2, 3)]))

    assert [answer.prompt_tokens for answer in answers] == [1, 2, 3]


def test_a_request_can_come_later() -> None:
    def hello(connection: socket.socket, body: bytes) -> None:
        connection.sendall(whole(200, {}))

    with listening(hello) as port:
        first, later = exchange(port, [Request("/x", b""), Request("/x", b"", after_seconds=0.05)])

    assert later.sent_at - first.sent_at >= 0.05


def test_a_request_can_follow_the_answer_to_another() -> None:
    def hello(connection: socket.socket, body: bytes) -> None:
        connection.sendall(whole(200, {}))

    with listening(hello) as port:
        requests = [Request("/x", b"", follows=1), Request("/x", b"", after_seconds=0.02)]
        later, first = read_answers(exchange(port, requests))

    assert later.sent_at >= first.ended_at


def test_one_at_a_time_each_is_held_back_until_those_before_it_are_answered() -> None:
    arrived: list[bytes] = []
    second = threading.Event()

    def answer(connection: socket.socket, body: bytes) -> None:
        arrived.append(body)
        if len(arrived) > 1:
            second.set()
        else:
            # If it were sent already it would come within this time.
            assert not second.wait(0.05)
        connection.sendall(whole(200, {}))

    with listening(answer) as port:
        requests = [Request("/x", b"") for _ in range(3)]
        answers = read_answers(exchange(port, requests, one_at_a_time=True))

    assert len(arrived) == 3
    # They count from when they were to be sent.
    assert answers[2].sent_at < answers[0].ended_at <= answers[2].ended_at


def test_a_request_can_wait_for_the_others_and_end_them() -> None:
    pieces = [b"x" * 10, b"y" * 10]
    asked = threading.Event()

    def talk(connection: socket.socket, body: bytes) -> None:
        if body == b"last":
            asked.set()
            connection.sendall(whole(200, {}))
            return
        connection.sendall(pieces[0])
        # Without the wait both could be read as one piece.
        assert not asked.wait(0.05)
        connection.sendall(pieces[1])
        # The client, and nobody else, ends this connection.
        assert asked.wait(10)
        assert connection.recv(1) == b""

    last = Request("/x", b"last", after_pieces=2, ends_all=True)
    with listening(talk) as port:
        running, ended = exchange(port, [Request("/x", b"first"), last])

    assert [data for _, data in running.pieces] == pieces
    assert running.cut_off
    assert not ended.cut_off
    assert ended.sent_at > running.pieces[1][0]


def test_a_server_that_says_nothing_is_given_up() -> None:
    def silence(connection: socket.socket, body: bytes) -> None:
        assert connection.recv(1) == b""

    with listening(silence) as port, pytest.raises(TimeoutError, match="no answer within"):
        exchange(port, [Request("/x", b"")], timeout_seconds=0.05)
