"""The encoders of an engine, shared by all routers that need the same one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakSet

from benchrouter.embeddings import Encoder, Fingerprint
from benchrouter.router import Router


@dataclass(frozen=True)
class Loading:
    """How an engine loads the routers and encoders that it is given by path or name.

    Attributes
    ----------
    dtype : str
        Arithmetic of the encoders, as in `Encoder.load`.
    threads : int
        Of search and votes, 0 = all.
    """

    dtype: str = "auto"
    threads: int = 0


class Encoders:
    """Encoders by device and fingerprint, loaded when a router is read that needs one.

    An encoder that was loaded here lives as long as somebody uses it.

    Parameters
    ----------
    given : Encoder or str, optional
        A loaded encoder, or where the routers' encoder is found if not under its recorded name.
    devices : sequence of str
    dtype : str
        As in `Encoder.load`.

    Raises
    ------
    ValueError
        If a loaded encoder is on none of the devices.
    """

    def __init__(self, given: Encoder | str | None, devices: Sequence[str], dtype: str) -> None:
        self._name = None if given is None or isinstance(given, Encoder) else str(given)
        self._dtype = dtype
        self._lock = threading.Lock()
        self._loaded: dict[str, WeakSet[Encoder]] = {device: WeakSet() for device in devices}
        self._given = given  # or it would be let go
        if isinstance(given, Encoder):
            if list(devices) != [given.device]:
                raise ValueError(
                    f"devices: found {list(devices)}, expected {[given.device]}, the device of the "
                    "encoder"
                )
            self._loaded[given.device].add(given)

    def of(self, router: Router) -> dict[str, Encoder]:
        """Find or load the encoder of a router on every device.

        Raises
        ------
        EncoderNotFound, ImportError, ValueError
            If there is none, or it is not the router's.
        """
        with self._lock:
            return {device: self._of(router, device) for device in self._loaded}

    def _of(self, router: Router, device: str) -> Encoder:
        loaded = self._loaded[device]
        for encoder in loaded:
            if _fits(router.fingerprint, encoder):
                return encoder
        name = self._name or (router.fingerprint and router.fingerprint.name)
        if not name:
            raise ValueError(
                "the router was fitted on given embeddings without an encoder: pass encoder=…"
            )
        encoder = Encoder.load(name, device=device, dtype=self._dtype)
        router.check_encoder(encoder.fingerprint)
        loaded.add(encoder)
        return encoder


def _fits(fingerprint: Fingerprint | None, encoder: Encoder) -> bool:
    return fingerprint is None or not fingerprint.difference(encoder.fingerprint)
