"""The console script: Ctrl-C ends it at once while it imports, which takes seconds."""

import signal


def run() -> None:
    """Import the commands, and run the one that was asked for.

    Meanwhile an interruption is the system's to handle. Python's ``KeyboardInterrupt`` would show a
    traceback through somebody's imports, or get lost in one of their ``except`` clauses; and there
    is nothing to tidy up yet.
    """
    raising = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if raising:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from apparate_cli import main

    if raising:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main.run()
