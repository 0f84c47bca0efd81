"""Prompts to unit-norm embeddings; importing this loads neither torch nor transformers."""

from benchrouter.encoder.cache import default_cache_dir
from benchrouter.encoder.encoder import DEFAULT_ENCODER, Encoder, TruncationWarning
from benchrouter.encoder.files import EncoderNotFound, resolve
from benchrouter.encoder.fingerprint import Fingerprint, fingerprint_of
from benchrouter.encoder.layout import EncoderFiles
from benchrouter.encoder.precomputed import as_unit_rows, load_embeddings, save_embeddings

__all__ = [
    "DEFAULT_ENCODER",
    "Encoder",
    "EncoderFiles",
    "EncoderNotFound",
    "Fingerprint",
    "TruncationWarning",
    "as_unit_rows",
    "default_cache_dir",
    "fingerprint_of",
    "load_embeddings",
    "resolve",
    "save_embeddings",
]
