"""Stands for `vl run` on a node: it says that it begins, takes its time to end when it is told to, and ends with 75."""

import signal
import sys
import time


def main() -> None:
    """Wait to be told."""

    def end(*_: object) -> None:
        time.sleep(8)
        print("saved", flush=True)
        sys.exit(75)

    signal.signal(signal.SIGTERM, end)
    print("begins", flush=True)
    while True:
        time.sleep(0.1)


if __name__ == "__main__":
    main()
