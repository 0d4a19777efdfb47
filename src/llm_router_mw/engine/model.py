"""Loading a model's weights, and the facts that its file tells."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from enum import Enum
from typing import Any

from llm_router_mw.engine.impossible import refuse_impossible
from llm_router_mw.engine.kept_vocab import DUMMIES, VocabApart
from llm_router_mw.engine.lora import Adapters
from llm_router_mw.engine.native import llama, log
from llm_router_mw.engine.parameters import model_parameters
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.errors import LLMRouterError, ModelFileError, ModelLoadError
from llm_router_mw.types import LoadOptions, Placement

LoadProgress = Callable[[float], bool]
"""Is told the fraction of the load that is done; False aborts it."""
_DESCRIPTION_BYTES = 256


class Rewind(Enum):
    """Where a sequence can be cut short, so that it goes on differently from there."""

    ANYWHERE = "anywhere"
    WINDOW = "window"
    """Only as long as the window before that place is still there (sliding-window attention)."""
    NOWHERE = "nowhere"
    """The state is the sum of all tokens (recurrent and hybrid models)."""


class LoadAbortedError(Exception):
    """The progress callback said no."""


class LoadedModel:
    """The weights of a model, in memory until :meth:`close`."""

    def __init__(self, pointer: Any, vocab: Vocab | None = None) -> None:
        """Take *pointer* over; *vocab* is its vocabulary where it was loaded without."""
        self.pointer = pointer
        self.vocab = vocab or Vocab(pointer)
        self.adapters = Adapters(pointer)
        self.n_ctx_train: int = llama.llama_model_n_ctx_train(pointer)
        self.n_embd: int = llama.llama_model_n_embd_out(pointer)
        self.n_params: int = llama.llama_model_n_params(pointer)
        self.size_bytes: int = llama.llama_model_size(pointer)
        self.has_encoder: bool = llama.llama_model_has_encoder(pointer)

    @property
    def description(self) -> str:
        """Architecture, size and quantisation, as llama.cpp words it."""
        buffer = ctypes.create_string_buffer(_DESCRIPTION_BYTES)
        llama.llama_model_desc(self.pointer, buffer, _DESCRIPTION_BYTES)
        return buffer.value.decode(errors="replace")

    @property
    def chat_template(self) -> str:
        """The file's own chat template; empty if it has none."""
        template: bytes | None = llama.llama_model_chat_template(self.pointer, None)
        return (template or b"").decode(errors="replace")

    @property
    def positions_are_learned(self) -> bool:
        """Whether the model has no rotary positions, and so none beyond its training length."""
        return bool(llama.llama_model_rope_type(self.pointer) == llama.LLAMA_ROPE_TYPE_NONE)

    @property
    def n_window(self) -> int:
        """Tokens that sliding-window attention looks back; 0 if the model has none."""
        window: int = llama.llama_model_n_swa(self.pointer)
        return window

    @property
    def rewind(self) -> Rewind:
        """Where a sequence of this model can be cut short."""
        if llama.llama_model_is_recurrent(self.pointer) or llama.llama_model_is_hybrid(
            self.pointer
        ):
            return Rewind.NOWHERE
        return Rewind.WINDOW if self.n_window else Rewind.ANYWHERE

    @property
    def n_scores(self) -> int:
        """Outputs of the classification head, for pooling ``rank``."""
        count: int = llama.llama_model_n_cls_out(self.pointer)
        return count

    def close(self) -> None:
        """Free the weights. Everything made from the model must be gone already."""
        llama.llama_model_free(self.pointer)


def load_model(
    path: str,
    options: LoadOptions,
    progress: LoadProgress,
    placement: Placement | None = None,
    apart: VocabApart | None = None,
) -> LoadedModel:
    """Load the weights in *path* as *options* say; where to, says *placement* if there is one.

    A vocabulary that is *apart* is left out. It must outlive the model.

    Raises:
        ModelFileError: the file is missing or cannot be read.
        ModelLoadError: llama.cpp refused it; the message holds its own words.
        LoadAbortedError: *progress* returned False.
    """
    # Clients see these messages, and need not know where files lie.
    name = os.path.basename(path)
    if not os.path.isfile(path):
        raise ModelFileError(f"the model's file {name!r} does not exist; check its path")
    if not os.access(path, os.R_OK):
        raise ModelFileError(f"the model's file {name!r} cannot be read; check its permissions")
    aborted = False

    def on_progress(fraction: float, _: object) -> bool:
        nonlocal aborted
        aborted = aborted or not progress(fraction)
        return not aborted

    parameters = model_parameters(options, placement)
    if apart is not None:
        apart.pretence.install(parameters)
    parameters.progress_callback = llama.llama_progress_callback(on_progress)
    log.clear()
    with log.ignoring(DUMMIES):
        pointer = llama.llama_model_load_from_file(os.fsencode(path), parameters)
    if aborted:
        raise LoadAbortedError
    if not pointer:
        reason = log.last_errors() or "it gave no reason"
        raise ModelLoadError(
            f"llama.cpp could not load {name!r}: {reason.replace(path, name)}",
            out_of_memory=log.tells_of_shortage,
        )
    try:
        vocab = apart.vocab if apart is not None else None
    except ModelLoadError:
        llama.llama_model_free(pointer)
        raise
    model = LoadedModel(pointer, vocab)
    if not model.vocab.usable:
        model.close()
        raise ModelLoadError(f"{name!r} has no tokenizer; it is not a model to talk to")
    return model


def equip(model: LoadedModel, options: LoadOptions) -> None:
    """Give *model* its adapters, if it can do what *options* say; else free it.

    Raises:
        ModelFileError: the file of an adapter is missing or cannot be read.
        ModelLoadError: llama.cpp refused an adapter, or would abort over the context.
        LLMRouterError: an option is wrong.
    """
    try:
        refuse_impossible(model.pointer, options)
        model.adapters.load(options.lora)
    except LLMRouterError:
        model.close()
        raise
