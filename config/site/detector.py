#!/usr/bin/env python3
"""The detector of the example site: takes a picture ten times a second, and cannot say when it is ready.

Each picture goes to memcached, a note of it to the MQTT broker, and its reading to the broker. A reading is sent only once the others have theirs.
"""

import signal
import sys
import time

import partners


def take(number):
    partners.store_image("newest", number.to_bytes(64, "big"))
    partners.announce("site/detector", f"picture {number}")
    partners.ask(b"put", str(number).encode())


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # The first must succeed: whoever starts it sees to the order.
    number = time.time_ns()
    take(number)
    print("the detector takes pictures", flush=True)
    while True:
        time.sleep(0.1)
        number = time.time_ns()
        try:
            take(number)
        except (OSError, TimeoutError) as error:
            print(f"picture {number} is lost: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
