#!/usr/bin/env python3
"""The recorder of the example site: fetches readings from the broker, counts them in Redis, and writes them to PostgreSQL.

It writes a page with the number of rows for the web server, and the file that says that it is ready once the first has been written.
"""

import os
import signal
import sys
import time

import partners

PAGE = "web/index.html"
READY = "recorder.ready"


def record(readings):
    if readings:
        values = ", ".join(f"({int(reading)})" for reading in readings)
        # Each reading once, also when it is not known whether an earlier try was done.
        partners.sql(f"INSERT INTO readings VALUES {values} ON CONFLICT DO NOTHING")
        partners.redis(f"INCRBY readings {len(readings)}")
    rows = partners.sql("SELECT count(*) FROM readings")
    with open(PAGE + ".new", "w") as page:
        page.write(f"{rows}\n")
    os.replace(PAGE + ".new", PAGE)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.makedirs("web", exist_ok=True)
    # These must succeed at the first try: whoever starts it sees to the order.
    partners.sql("CREATE TABLE IF NOT EXISTS readings (number bigint PRIMARY KEY)")
    partners.redis("PING")
    partners.ask(b"ping")
    record([])
    with open(READY, "w"):
        pass
    print("the recorder records", flush=True)
    waiting = []
    while True:
        time.sleep(0.2)
        try:
            waiting += [reading for reading in partners.ask(b"fetch") if reading]
            record(waiting)
            waiting = []
        except (OSError, TimeoutError) as error:
            print(f"{len(waiting)} readings wait: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
