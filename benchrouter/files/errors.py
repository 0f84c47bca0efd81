"""The errors of benchrouter, in one tree by what you do about them.

    BenchrouterError
    ├── BadInput               a file or prompt cannot be used as it is: correct it
    │   ├── CsvError           a CSV file breaks the rules of CSV
    │   ├── BadPrompt          a prompt has no text, or an unknown shape
    │   └── BadRouter          a saved router is missing, damaged or of another release: fit again
    ├── Unavailable            something is not here: install it, build it or name another
    │   ├── EncoderNotFound    the weights of an encoder
    │   ├── EncoderUnavailable the encoder of a command: its weights, its device or a package
    │   ├── NoCudaKernels      the CUDA kernels of the extension
    │   └── UnknownRouter      a router that the engine does not serve
    ├── DownloadRefused        a server does not hand out a file, however often it is asked
    ├── Stopped                a download was ended
    ├── Refusal                the HTTP service does not answer a request as asked
    └── ServiceError           the client got no answer from the service, or a wrong one
        ├── Unreachable        no connection, or no answer in time
        └── Refused            an answer of another status than 200
            └── Overloaded     429 or 503 too often: come back later

Each is also the builtin that says the same: BadInput is a ValueError, EncoderNotFound a
FileNotFoundError, NoCudaKernels a RuntimeError, UnknownRouter a KeyError, and DownloadRefused
an OSError. A wrong argument is a plain ValueError or TypeError, a missing optional package
an ImportError, a file that cannot be opened, read or written an OSError. Warnings are not errors:
CacheWarning is a RuntimeWarning, TruncationWarning a UserWarning.
"""

from __future__ import annotations


class BenchrouterError(Exception):
    """Any error of benchrouter that a caller may want to handle."""


class BadInput(BenchrouterError, ValueError):
    """A file or prompt cannot be used as it is; the message says what was found and expected."""


class BadRouter(BadInput):
    """A directory holds no router that this release can read; the message names the file."""


class Unavailable(BenchrouterError):
    """Something that is needed is not here; the message says how to get it."""
