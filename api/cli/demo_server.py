"""One server of a demonstration: `vfl party serve`, ended with the command that started it, however that ends."""

import os
import signal
import sys

from api.cli.main import main
from parties.processes import at_hang_up

if __name__ == "__main__":
    # The demonstration holds the other end of standard input: even SIGKILL closes it. SIGTERM ends a server in order.
    at_hang_up(sys.stdin.fileno(), lambda: os.kill(os.getpid(), signal.SIGTERM))
    main(["party", "serve", *sys.argv[1:]])
