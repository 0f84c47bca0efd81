"""The encoders of an engine: one of a kind on every device, shared by all routers that need it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from weakref import WeakSet

from benchrouter.embeddings import Encoder, Fingerprint
from benchrouter.router import Router


class Encoders:
    """Encoders by device and fingerprint; loaded when a router is read that needs one.

    One that was loaded here is kept by those who use it.

    Parameters
    ----------
    given : Encoder or str, optional
        One that is loaded already, or where the routers' encoder is found, if not under its
        recorded name.
    devices : sequence of str
    dtype : str
        As in `Encoder.load`.

    Raises
    ------
    ValueError
        If a loaded encoder is on none of the devices.
    """

    def __init__(self, given: Encoder | str | None, devices: Sequence[str], dtype: str) -> None:
        self._name = given if isinstance(given, str) else None
        self._dtype = dtype
        self._lock = threading.Lock()
        self._loaded: dict[str, WeakSet[Encoder]] = {device: WeakSet() for device in devices}
        self._given = given
        if isinstance(given, Encoder):
            if list(devices) != [given.device]:
                raise ValueError(
                    f"devices: found {list(devices)}, expected {[given.device]}, the device of the "
                    "encoder"
                )
            self._loaded[given.device].add(given)

    def of(self, router: Router, device: str) -> Encoder:
        """Find, or load, the encoder of a router on a device.

        Raises
        ------
        EncoderNotFound, ImportError, ValueError
            If there is none, or it is another than the router's.
        """
        with self._lock:
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
