"""What a server's process asks of the system."""

import platform
import subprocess
import sys

import pytest

PROCESS_SECONDS = 60
HOLD = """
import ctypes, re, sys
from pathlib import Path
from parties.processes import give_memory_back

def resident():
    return int(re.findall(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[0]) << 10

if sys.argv[1] == "given back":
    give_memory_back()
before, pinned = resident(), []
for _ in range(3):
    messages = []
    for _ in range(40):
        messages.append(bytearray(b"x") * (4 << 20))
        pinned.append(bytearray(b"x") * 5000)  # something small that stays behind each of them
    del messages
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose way of keeping memory it is about")
def test_memory_of_large_messages_goes_back_to_the_system_and_would_stay_otherwise() -> None:
    kept = {}
    for way in ("as it comes", "given back"):
        command = [sys.executable, "-c", HOLD, way]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_SECONDS, check=True)
        kept[way] = int(done.stdout)
    assert kept["given back"] < 10 << 20, kept
    assert kept["as it comes"] > 100 << 20, kept
