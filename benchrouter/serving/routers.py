"""The routers of an engine, by name; those from directories are read again when they change."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchrouter.decisions.backend import full_name
from benchrouter.decisions.decider import Decider
from benchrouter.embeddings import Encoder
from benchrouter.files.errors import Unavailable
from benchrouter.router import Router
from benchrouter.scores.saved import DESCRIPTION
from benchrouter.serving.observer import log
from benchrouter.votes.on_device import NoCudaKernels

ATTEMPTS = 3  # to read a directory that is being replaced
PAUSE_S = 0.2
RETRY_S = 30.0  # until a directory that could not be read is tried again, though unchanged

Source = Router | str | os.PathLike[str]
Signature = tuple[int, int, int]


class UnknownRouter(Unavailable, KeyError):
    """The engine has no router of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class RouterInfo:
    """A router as it is served.

    Attributes
    ----------
    name : str
    version : str
        For a directory, the first 12 hex digits of the SHA-256 of its description, which holds
        those of all files; for a router in memory, "memory-N" after N updates.
    directory : Path or None
        None = in memory.
    models : tuple of str
    fallback : str
    standing : tuple of str
        The fallback model, then all others by standing on the benchmark, best first.
    description : dict
        As `Router.describe`.
    loaded_at : float
        Seconds since the epoch.
    error : str or None
        Why the directory cannot be read as it is now.
    """

    name: str
    version: str
    directory: Path | None
    models: tuple[str, ...]
    fallback: str
    standing: tuple[str, ...]
    description: dict[str, Any]
    loaded_at: float
    error: str | None = None


@dataclass(frozen=True)
class Served:
    """A router with what it needs to be served; replaced as a whole."""

    router: Router
    deciders: Mapping[str, Decider]
    """By device: what decides on the prompts that are encoded there."""
    encoders: Mapping[str, Encoder]
    """By device."""
    info: RouterInfo
    signature: Signature | None
    revision: int


class Routers:
    """Routers by name; safe to share between threads.

    Parameters
    ----------
    sources : mapping of str to Router or path
    devices : sequence of str
        Where prompts are encoded. Routers that are read here are searched there too.
    threads : int
        Of search and votes, 0 = all.
    prepare : callable
        Takes a new router and its deciders before anybody uses them, and returns its encoders by
        device. If it raises, the router is refused.

    Raises
    ------
    ValueError
        If a directory holds no whole router.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        devices: Sequence[str],
        threads: int,
        prepare: Callable[[Router, Mapping[str, Decider]], Mapping[str, Encoder]],
    ) -> None:
        self._devices = devices
        self._threads = threads
        self._prepare = prepare
        self._reloading = threading.Lock()
        self._tried_at: dict[str, float] = {}
        self._served = {name: self._first(name, source) for name, source in sources.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the routers."""
        return tuple(self._served)

    def get(self, name: str | None) -> Served:
        """Find a router as it is now.

        Parameters
        ----------
        name : str or None
            None = the only one, or the one named "default".

        Raises
        ------
        UnknownRouter
            If there is none of that name.
        """
        only = next(iter(self._served)) if len(self._served) == 1 else "default"
        try:
            found = self._served[only if name is None else name]
        except (KeyError, TypeError):
            raise UnknownRouter(
                f"router: found {name!r}, expected one of {list(self._served)}"
            ) from None
        if found.info.directory is None and found.router.revision != found.revision:
            found = self._in_memory(found.info.name, found.router, found.encoders)
            self._served[found.info.name] = found
        return found

    def now(self, found: Served) -> Served:
        """The router as it is now; only routers in memory can have changed."""
        return found if found.info.directory is not None else self.get(found.info.name)

    def reload(self, name: str) -> Served | None:
        """Read a directory again if it has changed.

        Returns
        -------
        Served or None
            None if it is unchanged, or the router is in memory. If a directory cannot be read, the
            router stays as it was, with the error in its info.
        """
        with self._reloading:
            old = self._served[name]
            if old.info.directory is None:
                return None
            signature = _signature(old.info.directory)
            again = old.info.error and time.monotonic() - self._tried_at[name] > RETRY_S
            if signature == old.signature and not again:
                return None
            self._tried_at[name] = time.monotonic()
            try:
                new = self._read(name, old.info.directory)
            except Exception as e:  # whatever it is, keep the old one
                new = replace(old, info=replace(old.info, error=str(e)), signature=signature)
                if old.info.error != new.info.error:
                    log.error("router %r stays at version %s: %s", name, old.info.version, e)
            self._served[name] = new
            return new

    def _first(self, name: str, source: Source) -> Served:
        if not isinstance(source, Router):
            return self._read(name, Path(source))
        deciders = dict.fromkeys(self._devices, source.decider)
        return self._in_memory(name, source, self._prepare(source, deciders))

    def _in_memory(self, name: str, router: Router, encoders: Mapping[str, Encoder]) -> Served:
        revision = router.revision
        deciders = dict.fromkeys(self._devices, router.decider)
        info = _info(name, f"memory-{revision}", None, router)
        return Served(router, deciders, encoders, info, None, revision)

    def _read(self, name: str, directory: Path) -> Served:
        """Read a directory, again if it is replaced while it is being read."""
        for attempt in range(ATTEMPTS):
            signature = _signature(directory)
            try:
                version = _version(directory)
                router = Router.load(directory, threads=self._threads)
                places = {device: _place_of(device) for device in self._devices}
                deciders = {device: router.decider.on(place) for device, place in places.items()}
                encoders = self._prepare(router, deciders)
            except (ValueError, OSError):
                if attempt == ATTEMPTS - 1 or _signature(directory) == signature:
                    raise
                time.sleep(PAUSE_S)
                continue
            if version == _version(directory) or attempt == ATTEMPTS - 1:
                break
        info = _info(name, version, directory, router)
        return Served(router, deciders, encoders, info, signature, router.revision)


def _place_of(device: str) -> str:
    """Where prompts of a device are decided on: there, or on the CPU without kernels for it."""
    try:
        return full_name(device)
    except NoCudaKernels:
        return "cpu"


def _info(name: str, version: str, directory: Path | None, router: Router) -> RouterInfo:
    description = router.describe()
    standing = np.array([model["standing"] for model in description["models"]], np.float64)
    order = np.argsort(-np.nan_to_num(standing, nan=-np.inf), kind="stable")
    rest = (router.models[m] for m in order.tolist() if router.models[m] != router.fallback)
    return RouterInfo(
        name=name,
        version=version,
        directory=directory,
        models=router.models,
        fallback=router.fallback,
        standing=(router.fallback, *rest),
        description=description,
        loaded_at=time.time(),
    )


def _signature(directory: Path) -> Signature | None:
    """What changes when a router is replaced; None if there is no router."""
    try:
        found = os.stat(directory / DESCRIPTION)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _version(directory: Path) -> str:
    path = directory / DESCRIPTION
    if not path.is_file():
        raise ValueError(f"{directory} is not a router: it has no {DESCRIPTION}")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
