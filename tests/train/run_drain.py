"""A worker's loop that ends when it is asked to go: run_drain.py FOLDER WHERE, the loop in the main thread or, as under Ray Train, not.

Before it, SIGTERM ends the process with code 40 + the number of steps that were taken.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from headrace.train.drain import Drain, listen, requested, stop_listening

steps = 0


def earlier(number, frame):
    os._exit(40 + min(steps, 9))


def loop(folder: Path) -> None:
    global steps
    with Drain([requested(folder)]) as drain:
        while not drain.asked():
            steps += 1
            (folder / "steps").write_text(str(steps))
            time.sleep(0.02)
        (folder / "why").write_text(str(drain.why))
        while not (folder / "saved").exists():  # a just-in-time checkpoint takes a while
            time.sleep(0.02)


def main(folder: Path, where: str) -> None:
    signal.signal(signal.SIGTERM, earlier)
    if where == "main":
        loop(folder)
    else:
        listen()
        thread = threading.Thread(target=loop, args=(folder,))
        thread.start()
        while thread.is_alive():
            thread.join(0.02)
        stop_listening()
    restored = signal.getsignal(signal.SIGTERM) is earlier
    os._exit(0 if restored else 3)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
