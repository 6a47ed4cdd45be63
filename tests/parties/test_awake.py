"""What a process could not hear while it stood still is not held against its peers."""

import os
import signal
import subprocess
import sys
import time

from parties.awake import PAUSE_SECONDS

STOPPED_SECONDS = PAUSE_SECONDS + 0.5
CLOCK = """
import sys, time
from parties.awake import AwakeClock
clock = AwakeClock()
began, awake = time.monotonic(), clock()
print("runs", flush=True)
sys.stdin.readline()
print(time.monotonic() - began, clock() - awake)
"""


def test_a_stopped_process_does_not_count_the_time_it_was_stopped() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CLOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(STOPPED_SECONDS)
        os.kill(process.pid, signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        passed, awake = map(float, process.stdout.readline().split())
    assert passed - awake >= STOPPED_SECONDS - 0.5
