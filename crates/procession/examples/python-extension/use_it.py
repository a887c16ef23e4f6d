"""Uses the extension, also where a task crashes; `PYTHONPATH` has the folder of `checksums.so`."""

import sys

import checksums

print(checksums.checksums(["a", "bc"]))
try:
    checksums.checksums(["a", "crash"])
except RuntimeError as error:
    print("SIGABRT" in str(error))
print(sys.stdin.read().strip(), "is still for this program")
