"""Prompts to unit-norm embeddings; importing this loads neither torch nor transformers."""

from benchrouter.embeddings.cache import default_cache_dir
from benchrouter.embeddings.encoder import DEFAULT_ENCODER, Encoder, TruncationWarning
from benchrouter.embeddings.fingerprint import Fingerprint, fingerprint_of
from benchrouter.embeddings.stored import load_embeddings, save_embeddings
from benchrouter.embeddings.unit_rows import as_unit_rows
from benchrouter.embeddings.weights.find import EncoderNotFound, resolve
from benchrouter.embeddings.weights.layout import EncoderFiles

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
