"""The weights of an instance: loaded beside their vocabulary, which outlives them."""

from __future__ import annotations

import logging

from llm_router_mw.engine.kept_vocab import (
    KeptVocab,
    VocabApart,
    VocabBeside,
    keep_vocab,
    pretence_for,
)
from llm_router_mw.engine.model import LoadedModel, LoadProgress, equip, load_model
from llm_router_mw.errors import ModelLoadError
from llm_router_mw.types import LoadOptions, Placement

logger = logging.getLogger("llm_router_mw.engine")


class Weights:
    """Loads the weights of one file, again and again, and its vocabulary once."""

    def __init__(self, path: str, options: LoadOptions, placement: Placement | None) -> None:
        """Load those in *path* as *options* say, and where *placement* says if there is one."""
        self._path = path
        self._options = options
        self._placement = placement
        self.kept: KeptVocab | None = None
        """The vocabulary, from the first time that it was read apart."""

    def load(self, progress: LoadProgress) -> LoadedModel:
        """Load them, with their adapters; the vocabulary must outlive the model.

        Raises:
            LLMRouterError, LoadAbortedError: as ``load_model`` and ``equip``.
        """
        model = self._load_alone(progress)
        equip(model, self._options)
        return model

    def _load_alone(self, progress: LoadProgress) -> LoadedModel:
        """Load them without adapters."""
        if self.kept is not None and not self.kept.is_of(self._path):
            self.forget()
        apart = self.kept or self._beside()
        try:
            return self._load(progress, apart)
        except ModelLoadError as error:
            if apart is None or error.out_of_memory:
                raise
            logger.info("the vocabulary is read again: %s", error)
        finally:
            if isinstance(apart, VocabBeside):
                self.kept = apart.finish()
        self.forget()
        return self._load(progress, None)

    def _beside(self) -> VocabBeside | None:
        """Begin to read the vocabulary, if the weights can be loaded without."""
        pretence = pretence_for(self._path)
        return None if pretence is None else VocabBeside(self._path, pretence)

    def _load(self, progress: LoadProgress, apart: VocabApart | None) -> LoadedModel:
        return load_model(self._path, self._options, progress, self._placement, apart)

    def keep_vocab(self) -> None:
        """Read the vocabulary for the next load, if that is not done."""
        if self.kept is None:
            self.kept = keep_vocab(self._path)

    def forget(self) -> None:
        """Free the vocabulary. Whatever uses it must be gone already."""
        if self.kept is not None:
            self.kept.close()
            self.kept = None
