#!/usr/bin/env python3
"""The broker of the example site: keeps readings until somebody fetches them.

A ZeroMQ ROUTER that answers [b"ping"], [b"put", reading], [b"fetch"] and [b"terminate"].
"""

import collections

import partners
import zmq


def main():
    # It gives up at once where the settings are not there: whoever starts it sees to the order.
    keep = int(partners.setting("broker/keep", "10000"))
    readings = collections.deque(maxlen=keep)
    router = zmq.Context.instance().socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 1000)
    router.bind(f"tcp://{partners.HOST}:{partners.port('broker')}")
    print("the broker serves", flush=True)
    while True:
        *envelope, request = split(router.recv_multipart())
        answer = [b"ok"]
        match request:
            case [b"ping"]:
                answer = [b"pong"]
            case [b"put", reading]:
                readings.append(reading)
            case [b"fetch"]:
                answer = list(readings) or [b""]
                readings.clear()
            case [b"terminate"]:
                router.send_multipart([*envelope, *answer])
                break
            case _:
                answer = [b"unknown request"]
        router.send_multipart([*envelope, *answer])
    router.close()
    print("the broker ends", flush=True)


def split(frames):
    """The frames up to the empty one, and then those of the request as one list."""
    end = frames.index(b"") + 1 if b"" in frames else 1
    return [*frames[:end], frames[end:]]


if __name__ == "__main__":
    main()
