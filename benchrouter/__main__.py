"""``python -m benchrouter``: the command line."""

from benchrouter.cli import main

if __name__ == "__main__":
    main()
