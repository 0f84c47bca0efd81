"""The settings of an encoder's folder, in sentence-transformers' layout or a plain one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from benchrouter.files.errors import BadInput

POOLINGS = ("mean", "cls", "max")

# The flags of older 1_Pooling/config.json files and the mode that each stands for.
_POOLING_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

# These architectures number positions from pad_token_id + 1; the first ones hold no token.
_POSITIONS_AFTER_PADDING = {
    "camembert",
    "data2vec-text",
    "longformer",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
}

# Settings of the Transformer module that do not change its output, or are supported here.
_TRANSFORMER_SETTINGS = {
    "max_seq_length",
    "do_lower_case",
    "transformer_task",
    "modality_config",
    "module_output_name",
}

# Tokenizers without a limit of their own record an absurdly large one.
_NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class EncoderFiles:
    """An encoder on disk: its files and the settings that shape its embeddings.

    Attributes
    ----------
    name : str
        The name that `resolve` was asked for; a local folder as an absolute path.
    revision : str or None
        The hub's commit, or the version of the package that holds the weights.
    folder : Path
        Folder of the transformer: config.json, weights and tokenizer.
    weights : tuple of Path
        The safetensors file, or its shards in order of name.
    tokenizer : Path or None
        tokenizer.json, where there is one.
    pooling : str
        "mean", "cls" or "max".
    normalize : bool
        Whether the folder itself asks for unit rows; they are made unit either way.
    dim : int
        Length of an embedding.
    default_tokens : int or None
        Tokens kept of a prompt unless told otherwise, special tokens included.
    position_limit : int or None
        The most tokens that the architecture has positions for.
    lower_case : bool
        Whether text is lower-cased before the tokenizer's own normalisation.
    pad_token_id : int
        Token that fills short rows of a batch.
    vocab_size : int or None
        The tokens that the network has vectors for.
    has_modules : bool
        Whether the folder has sentence-transformers' modules.json.
    """

    name: str
    revision: str | None
    folder: Path
    weights: tuple[Path, ...]
    tokenizer: Path | None
    pooling: str
    normalize: bool
    dim: int
    default_tokens: int | None
    position_limit: int | None
    lower_case: bool
    pad_token_id: int
    vocab_size: int | None
    has_modules: bool

    def token_limit(self, max_tokens: int | None = None) -> int:
        """Tokens kept of a prompt, special tokens included.

        Parameters
        ----------
        max_tokens : int, optional
            The caller's own limit; by default the folder's.

        Raises
        ------
        TypeError
            If `max_tokens` is not an int.
        ValueError
            If `max_tokens` is below 1 or above the positions that the architecture has, or if
            neither the caller nor the folder gives a limit.
        """
        if max_tokens is None:
            if self.default_tokens is None:
                raise ValueError(
                    f"{self.folder}: found no limit on the number of tokens (max_seq_length, "
                    "model_max_length or max_position_embeddings), expected one or max_tokens"
                )
            return self.default_tokens
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int):
            raise TypeError(f"max_tokens must be an int, got {type(max_tokens).__name__}")
        highest = self.position_limit
        if max_tokens < 1 or (highest is not None and max_tokens > highest):
            expected = "at least 1" if highest is None else f"1 to {highest}"
            raise ValueError(f"max_tokens is {max_tokens}, encoder {self.name} allows {expected}")
        return max_tokens


def read_layout(folder: Path, *, name: str, revision: str | None = None) -> EncoderFiles:
    """Read the settings of an encoder from its folder.

    Parameters
    ----------
    folder : Path
        A folder in sentence-transformers' layout (modules.json), or a plain transformers folder,
        which is mean-pooled as sentence-transformers does.
    name, revision : str
        Recorded as they are.

    Raises
    ------
    FileNotFoundError
        If a file that the layout needs is absent.
    BadInput
        If the folder asks for anything that would change the embeddings and is not supported;
        the message names it.
    """
    has_modules = (folder / "modules.json").is_file()
    if has_modules:
        transformer, pooling_folder, normalize = _read_modules(folder)
        pooling, pooling_dim = _read_pooling(pooling_folder / "config.json")
        _refuse_default_prompt(folder / "config_sentence_transformers.json")
    else:
        transformer, pooling, pooling_dim, normalize = folder, "mean", None, False
    config_path = transformer / "config.json"
    config = _read_json(config_path)
    if config.get("is_encoder_decoder"):
        raise BadInput(
            f"{config_path}: found an encoder-decoder ({config.get('model_type')}), "
            "expected an encoder such as bert or mpnet"
        )
    causal = [a for a in config.get("architectures") or () if a.endswith("ForCausalLM")]
    if causal and not has_modules:
        raise BadInput(
            f"{config_path}: found {causal[0]}, which needs last-token pooling; "
            f"expected an encoder for one of {', '.join(POOLINGS)} pooling"
        )
    settings = _read_transformer_settings(transformer)
    pad_token_id = _pad_token_id(config)
    positions = _position_limit(config, pad_token_id)
    return EncoderFiles(
        name=name,
        revision=revision,
        folder=transformer,
        weights=_weights(transformer),
        tokenizer=_existing(transformer / "tokenizer.json"),
        pooling=pooling,
        normalize=normalize,
        dim=_dim(config, config_path, pooling_dim),
        default_tokens=_default_tokens(transformer, settings, positions),
        position_limit=positions,
        lower_case=bool(settings.get("do_lower_case", False)),
        pad_token_id=pad_token_id,
        vocab_size=config.get("vocab_size"),
        has_modules=has_modules,
    )


def _read_json(path: Path) -> dict[str, Any]:
    value = _load_json(path)
    if not isinstance(value, dict):
        raise BadInput(f"{path}: found a {type(value).__name__}, expected a JSON object")
    return value


def _load_json(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected the encoder's settings")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path}: found no valid JSON ({error})") from error


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _read_modules(folder: Path) -> tuple[Path, Path, bool]:
    """Folders of the Transformer and the Pooling, and whether Normalize follows them."""
    path = folder / "modules.json"
    modules = _load_json(path)
    if not isinstance(modules, list) or not all(
        isinstance(m, dict) and isinstance(m.get("type"), str) for m in modules
    ):
        raise BadInput(f'{path}: expected a list of objects with a "type"')
    kinds = []
    for module in modules:
        kind = module["type"].rpartition(".")[2]
        ours = module["type"].startswith("sentence_transformers.")
        if not ours or kind not in ("Transformer", "Pooling", "Normalize"):
            raise BadInput(
                f"{path}: found the module {module['type']}, "
                "expected only Transformer, Pooling and Normalize of sentence_transformers"
            )
        kinds.append(kind)
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise BadInput(
            f"{path}: found the modules {', '.join(kinds) or '(none)'}, "
            "expected Transformer, Pooling and at most Normalize, in this order"
        )
    inside = []
    for module in modules[:2]:
        where = PurePosixPath(module.get("path", ""))
        if where.is_absolute() or ".." in where.parts:
            raise BadInput(f"{path}: found the path {str(where)!r}, expected one in the folder")
        inside.append(folder / where)
    return inside[0], inside[1], len(kinds) == 3


def _read_pooling(path: Path) -> tuple[str, int | None]:
    config = _read_json(path)
    if config.get("include_prompt") is False:
        raise BadInput(f"{path}: found include_prompt false, expected true or nothing")
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    elif isinstance(modes, str):
        modes = [modes]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise BadInput(
            f"{path}: found the pooling {' + '.join(map(str, modes))}, "
            f"expected one of {', '.join(POOLINGS)}"
        )
    return modes[0], config.get("embedding_dimension", config.get("word_embedding_dimension"))


def _refuse_default_prompt(path: Path) -> None:
    """Refuse a prefix put before every text, which would change the embeddings."""
    config = _read_json(path) if path.is_file() else {}
    default = config.get("default_prompt_name")
    if default is not None and (config.get("prompts") or {}).get(default):
        raise BadInput(
            f"{path}: found default_prompt_name {default!r}, "
            "expected none: texts are encoded as they are"
        )


def _read_transformer_settings(folder: Path) -> dict[str, Any]:
    named = folder / "sentence_bert_config.json"
    # Older folders name this file after their architecture, as in sentence_roberta_config.json.
    paths = [named] if named.is_file() else sorted(folder.glob("sentence_*_config.json"))
    if not paths:
        return {}
    path, settings = paths[0], _read_json(paths[0])
    unknown = [key for key in settings if key not in _TRANSFORMER_SETTINGS and settings[key]]
    task = settings.get("transformer_task", "feature-extraction")
    output = settings.get("module_output_name", "token_embeddings")
    if unknown or task != "feature-extraction" or output != "token_embeddings":
        found = unknown or [f"transformer_task {task!r}, module_output_name {output!r}"]
        raise BadInput(
            f"{path}: found {', '.join(found)}, expected only max_seq_length and do_lower_case"
        )
    limit = settings.get("max_seq_length")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise BadInput(f"{path}: found max_seq_length {limit!r}, expected a positive integer")
    return settings


def _pad_token_id(config: dict[str, Any]) -> int:
    stated = config.get("pad_token_id")
    if stated is None:
        return 1 if config.get("model_type") in _POSITIONS_AFTER_PADDING else 0
    return int(stated)


def _position_limit(config: dict[str, Any], pad_token_id: int) -> int | None:
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        return None
    if config.get("model_type") in _POSITIONS_AFTER_PADDING:
        positions -= pad_token_id + 1
    return positions


def _default_tokens(
    folder: Path, settings: dict[str, Any], position_limit: int | None
) -> int | None:
    limits = [] if position_limit is None else [position_limit]
    if settings.get("max_seq_length") is not None:
        limits.append(settings["max_seq_length"])
    elif (folder / "tokenizer_config.json").is_file():
        limit = _read_json(folder / "tokenizer_config.json").get("model_max_length")
        if isinstance(limit, (int, float)) and 0 < limit < _NO_LIMIT:
            limits.append(int(limit))
    return min(limits, default=None)


def _dim(config: dict[str, Any], path: Path, pooling_dim: int | None) -> int:
    dims = [config[key] for key in ("hidden_size", "d_model", "dim", "n_embd") if key in config]
    dim = dims[0] if dims else pooling_dim
    if not isinstance(dim, int) or dim < 1:
        raise BadInput(f"{path}: found no hidden_size, expected the length of an embedding")
    if pooling_dim is not None and pooling_dim != dim:
        raise BadInput(f"{path}: found hidden size {dim}, the Pooling module's is {pooling_dim}")
    return dim


def _weights(folder: Path) -> tuple[Path, ...]:
    """Weights file or shards; pickled weights are not read, for they can run code."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return (single,)
    if index.is_file():
        names = sorted(set(_read_json(index).get("weight_map", {}).values()))
        paths = tuple(folder / name for name in names)
        absent = [path.name for path in paths if not path.is_file()]
        if absent or not paths:
            raise FileNotFoundError(
                f"{index}: found no file {absent[0] if absent else '(none named)'}, "
                "expected every shard that it names"
            )
        return paths
    others = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".h5", ".pt", ".onnx"))
    raise FileNotFoundError(
        f"{folder}: found {', '.join(others) or 'no weights'}, expected model.safetensors"
        + (" (other formats, pickled ones above all, are not read)" if others else "")
    )
