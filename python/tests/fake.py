"""A server that is no procmand: it answers as a test says."""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, Iterator, List, Optional

import msgpack
import zmq

Answer = Callable[[Dict[str, Any]], Optional[List[bytes]]]
"""From a request to the frames of the reply; None for no reply."""


def good(request: Dict[str, Any], **more: Any) -> List[bytes]:
    """The right answer to a ping, with more or other keys."""
    reply = {"success": True, "result": {"pong": True, "time": 1.0, "later": 1}, "request_id": request["request_id"], "later": [1]}
    return [msgpack.packb({**reply, **more})]


class Fake:
    """Answers each request by the function that it is given, in a thread."""

    def __init__(self, endpoint: str, answer: Answer, secret: Optional[bytes] = None, public: Optional[bytes] = None) -> None:
        self.requests: List[Dict[str, Any]] = []
        self.answer = answer
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        if secret is not None:
            self._socket.setsockopt(zmq.CURVE_SERVER, 1)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        self._socket.bind(endpoint)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            while True:
                identity, empty, frame = self._socket.recv_multipart()
                request = msgpack.unpackb(frame)
                self.requests.append(request)
                frames = self.answer(request)
                if frames is not None:
                    self._socket.send_multipart([identity, empty, *frames])
        except (zmq.ContextTerminated, zmq.ZMQError):
            self._socket.close(0)

    def close(self) -> None:
        self._context.term()
        self._thread.join()


def in_turn(*answers: Answer) -> Answer:
    """The answers one after the other, the last one for ever."""
    left: Iterator[Answer] = iter(answers)
    present = [next(left)]

    def answer(request: Dict[str, Any]) -> Optional[List[bytes]]:
        frames = present[0](request)
        present[0] = next(left, present[0])
        return frames

    return answer
