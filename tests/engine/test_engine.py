"""Loading, and what holds for requests of every kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_router_mw.engine.engine import Engine
from llm_router_mw.engine.model import LoadAbortedError
from llm_router_mw.errors import (
    InvalidRequestError,
    LLMRouterError,
    ModelFileError,
    ModelLoadError,
    NotSupportedError,
    WireError,
    error_from,
)
from llm_router_mw.types import ChatTask, CompletionTask, EmbeddingDelta, LoadOptions, Task
from tests.engine.conftest import Load
from tests.engine.driver import CHAT_FORMATS, GREEDY, Driver, prompt
from tests.engine.formats import THIS
from tests.support.tiny_models import write_tiny_llama


def chat(*contents: str, **fields: object) -> ChatTask:
    messages = tuple({"role": "user", "content": content} for content in contents)
    return ChatTask(messages=messages, sampling=GREEDY, **fields)  # type: ignore[arg-type]


def failure(driver: Driver, task: Task) -> LLMRouterError:
    """Return the error that *task* ends with."""
    request = driver.submit(task)
    driver.run()
    return error_from(driver.failure(request))


class TestLoad:
    def test_the_facts_of_the_model_are_told(self, load: Load, endless: Path) -> None:
        info = load(endless, n_ctx=0, n_parallel=3).info
        assert (info.n_ctx, info.n_ctx_train, info.n_parallel) == (2048, 2048, 3)
        assert (info.n_embd, info.n_vocab) == (64, 382)
        assert info.n_params == 131136
        assert info.size_bytes == 4 * info.n_params
        assert info.load_seconds > 0
        assert "llama" in info.description

    def test_a_long_trained_context_is_not_taken_whole(self, load: Load, folder: Path) -> None:
        path = write_tiny_llama(folder / "long.gguf", n_ctx_train=100_000)
        assert load(path, n_ctx=0).info.n_ctx == 8192

    def test_weights_can_be_read_instead_of_mapped(self, load: Load, endless: Path) -> None:
        read = load(endless, use_mmap=False).answer(prompt(max_tokens=9))
        assert read == load(endless).answer(prompt(max_tokens=9))

    def test_threads_default_to_the_usable_cores(self, load: Load, endless: Path) -> None:
        assert load(endless, n_threads=0).answer(prompt(max_tokens=3))

    def test_progress_goes_up_to_one(self, endless: Path) -> None:
        engine = Engine(lambda deltas: None)
        seen: list[float] = []

        def progress(fraction: float) -> bool:
            seen.append(fraction)
            return True

        engine.load(str(endless), LoadOptions(n_ctx=256), CHAT_FORMATS, progress)
        engine.close()
        assert seen == sorted(seen)
        assert (seen[0], seen[-1]) == (0.0, 1.0)

    def test_progress_can_abort(self, endless: Path) -> None:
        engine = Engine(lambda deltas: None)
        with pytest.raises(LoadAbortedError):
            engine.load(str(endless), LoadOptions(), CHAT_FORMATS, lambda fraction: False)
        engine.close()

    def test_it_can_be_aborted_when_the_weights_are_there(self, endless: Path) -> None:
        engine = Engine(lambda deltas: None)
        with pytest.raises(LoadAbortedError):
            engine.load(str(endless), LoadOptions(), CHAT_FORMATS, lambda fraction: fraction < 1)
        engine.close()

    def test_a_missing_file_is_named_without_its_folder(self, load: Load, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match=r"'gone\.gguf' does not exist") as caught:
            load(tmp_path / "gone.gguf")
        assert str(tmp_path) not in caught.value.message

    def test_an_unreadable_file_is_named(
        self, load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Root may read everything, so permissions alone would not do.
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(ModelFileError, match="cannot be read; check its permissions"):
            load(endless)

    def test_a_file_that_is_no_gguf_fails_in_the_words_of_llama_cpp(
        self, load: Load, tmp_path: Path
    ) -> None:
        path = tmp_path / "text.gguf"
        path.write_text("once upon a time")
        with pytest.raises(ModelLoadError, match=r"'text\.gguf'.*invalid magic") as caught:
            load(path)
        assert str(tmp_path) not in caught.value.message

    def test_a_truncated_file_fails_in_the_words_of_llama_cpp(
        self, load: Load, endless: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "half.gguf"
        path.write_bytes(endless.read_bytes()[:300_000])
        with pytest.raises(ModelLoadError, match="corrupted or incomplete"):
            load(path)

    def test_a_context_without_room_says_what_to_lower(
        self, load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "llama_cpp.llama_cpp.llama_init_from_model", lambda model, parameters: None
        )
        with pytest.raises(ModelLoadError, match="smaller n_ctx"):
            load(endless)

    def test_a_model_that_cannot_compute_fails_to_load(
        self, load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("llm_router_mw.engine.context.Context.compute", lambda self: -3)
        with pytest.raises(ModelLoadError, match=r"cannot compute with it \(code -3\)"):
            load(endless)

    def test_an_encoder_without_pooling_says_which_option_to_set(
        self, load: Load, encoder: Path
    ) -> None:
        with pytest.raises(ModelLoadError, match="load option pooling"):
            load(encoder)

    def test_so_does_a_model_that_must_encode_first(
        self, load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("llama_cpp.llama_cpp.llama_model_has_encoder", lambda model: True)
        with pytest.raises(ModelLoadError, match="load option pooling"):
            load(endless)

    def test_a_file_without_a_tokenizer_is_refused(
        self, load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("llama_cpp.llama_cpp.llama_vocab_type", lambda vocab: 0)
        with pytest.raises(ModelLoadError, match=r"'endless\.gguf' has no tokenizer"):
            load(endless)

    def test_loading_again_and_again_leaves_nothing_behind(self, endless: Path) -> None:
        def resident() -> int:
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        def load_and_run() -> None:
            driver = Driver(endless, n_ctx=4096)
            driver.submit(prompt())
            driver.step()
            driver.close()
            driver.close()

        for _ in range(5):
            load_and_run()
        before = resident()
        for _ in range(20):
            load_and_run()
        # One context holds 2 MiB of cells and more in buffers.
        assert resident() - before < 10 * 2**20


class TestChatFormat:
    def test_a_format_is_imported_by_its_name(self, load: Load, reciter: Path) -> None:
        driver = load(reciter, chat_format="plain", chat_formats={"plain": f"{THIS}:PlainFormat"})
        request = driver.submit(chat("hi"))
        driver.run()
        assert driver.text(request) == "Hello"
        assert driver.finish(request).usage.prompt_tokens == 3

    def test_an_unknown_one_fails_the_load(self, load: Load, endless: Path) -> None:
        with pytest.raises(ModelLoadError, match="no chat format 'odd'; registered are: template"):
            load(endless, chat_format="odd")

    @pytest.mark.parametrize("dotted", ["no_such_module:X", f"{THIS}:NoSuchFormat"])
    def test_one_that_cannot_be_imported_fails_the_load(
        self, load: Load, endless: Path, dotted: str
    ) -> None:
        with pytest.raises(ModelLoadError, match="'odd' cannot be imported"):
            load(endless, chat_format="odd", chat_formats={"odd": dotted})

    def test_a_grammar_is_refused(self, load: Load, endless: Path) -> None:
        driver = load(endless, chat_format="g", chat_formats={"g": f"{THIS}:GrammarFormat"})
        assert isinstance(failure(driver, chat("hi")), NotSupportedError)

    def test_one_with_a_bug_fails_only_its_request(self, load: Load, endless: Path) -> None:
        driver = load(endless, chat_format="c", chat_formats={"c": f"{THIS}:CrashingFormat"})
        error = failure(driver, chat("hi"))
        assert type(error) is LLMRouterError
        assert "a bug" in error.message
        assert driver.answer(prompt(max_tokens=3))

    def test_what_a_parser_adds_at_the_end_waits_for_credit_before_the_finish(
        self, load: Load, reciter: Path
    ) -> None:
        driver = load(reciter, chat_format="t", chat_formats={"t": f"{THIS}:TalkativeFormat"})
        request = driver.submit(chat("hi"), credit=2)
        driver.run()
        assert len(driver.deltas[request]) == 2
        driver.engine.credit(request, 2)
        driver.run()
        assert isinstance(driver.deltas[request][3], EmbeddingDelta)
        assert driver.finish(request).reason == "stop"

    def test_cancelling_then_drops_what_waits_but_keeps_the_finish(
        self, load: Load, reciter: Path
    ) -> None:
        driver = load(reciter, chat_format="t", chat_formats={"t": f"{THIS}:TalkativeFormat"})
        request = driver.submit(chat("hi"), credit=2)
        driver.run()
        driver.engine.cancel(request)
        driver.engine.cancel(request)
        driver.run()
        assert len(driver.deltas[request]) == 3
        assert driver.finish(request).reason == "stop"

    def test_the_files_own_template_is_used(self, load: Load, endless: Path) -> None:
        written = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        driver = load(endless)
        assert driver.answer(chat("hi", max_tokens=9)) == driver.answer(
            prompt(written, max_tokens=9)
        )

    def test_an_option_replaces_it(self, load: Load, endless: Path) -> None:
        driver = load(endless, chat_template="{{ messages[0].content }}?")
        assert driver.answer(chat("hi", max_tokens=9)) == driver.answer(prompt("hi?", max_tokens=9))

    def test_without_any_template_chatml_is_used(self, load: Load, folder: Path) -> None:
        path = write_tiny_llama(folder / "untemplated.gguf", chat_template=None)
        written = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        driver = load(path)
        assert driver.answer(chat("hi", max_tokens=9)) == driver.answer(
            prompt(written, max_tokens=9)
        )

    def test_a_broken_template_refuses_chats_but_not_completions(
        self, load: Load, folder: Path
    ) -> None:
        path = write_tiny_llama(folder / "broken.gguf", chat_template="{% for %}")
        driver = load(path)
        error = failure(driver, chat("hi"))
        assert isinstance(error, InvalidRequestError)
        assert "set the option chat_template" in error.message
        assert driver.answer(prompt(max_tokens=3))

    def test_bad_messages_fail_only_their_request(self, load: Load, endless: Path) -> None:
        driver = load(endless)
        other = driver.submit(prompt(max_tokens=5))
        error = failure(driver, ChatTask(messages=({"role": "user", "content": 7},)))
        assert isinstance(error, InvalidRequestError)
        assert error.param == "messages"
        assert driver.finish(other).reason == "length"


class TestPrompt:
    def test_the_beginning_is_added_once(self, load: Load, endless: Path) -> None:
        driver = load(endless, chat_template="{{ bos_token }}{{ messages[0].content }}")
        for task in (chat("ab", max_tokens=1), prompt("ab", max_tokens=1)):
            request = driver.submit(task)
            driver.run()
            assert driver.finish(request).usage.prompt_tokens == 3

    def test_it_is_not_added_where_the_model_does_not_want_it(
        self, load: Load, folder: Path
    ) -> None:
        driver = load(write_tiny_llama(folder / "no_add.gguf", add_bos=False))
        request = driver.submit(prompt("ab", max_tokens=1))
        driver.run()
        assert driver.finish(request).usage.prompt_tokens == 2

    def test_tokens_are_taken_as_they_are(self, load: Load, endless: Path) -> None:
        driver = load(endless)
        request = driver.submit(prompt((300, 301), max_tokens=1))
        driver.run()
        assert driver.finish(request).usage.prompt_tokens == 2

    @pytest.mark.parametrize("token", [-1, 382, 2**40])
    def test_a_token_that_the_model_lacks_is_refused(
        self, load: Load, endless: Path, token: int
    ) -> None:
        error = failure(load(endless), prompt((300, token)))
        assert isinstance(error, InvalidRequestError)
        assert error.param == "prompt"
        assert f"token {token}; this model's tokens are 0 to 381" in error.message

    @pytest.mark.parametrize("empty", ["", ()])
    def test_an_empty_prompt_becomes_the_beginning(
        self, load: Load, folder: Path, empty: str | tuple[int, ...]
    ) -> None:
        driver = load(write_tiny_llama(folder / "no_add.gguf", add_bos=False))
        request = driver.submit(prompt(empty, max_tokens=1))
        driver.run()
        assert driver.finish(request).usage.prompt_tokens == 1

    @pytest.mark.parametrize(("task", "param"), [(prompt(()), "prompt"), (chat(""), "messages")])
    def test_an_empty_prompt_of_a_model_without_a_beginning_is_refused(
        self,
        load: Load,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        task: Task,
        param: str,
    ) -> None:
        # Only vocabularies of kinds that the tiny models are not have no such token.
        monkeypatch.setattr("llama_cpp.llama_cpp.llama_vocab_bos", lambda vocab: -1)
        driver = load(
            write_tiny_llama(folder / "no_add.gguf", add_bos=False), chat_template="{{ '' }}"
        )
        error = failure(driver, task)
        assert isinstance(error, InvalidRequestError)
        assert error.param == param

    def test_half_a_surrogate_pair_is_refused(self, load: Load, endless: Path) -> None:
        error = failure(load(endless), prompt("so \ud83d far"))
        assert isinstance(error, InvalidRequestError)
        assert error.param == "prompt"
        assert "at character 3" in error.message

    def test_any_text_becomes_tokens(self, load: Load, endless: Path) -> None:
        assert load(endless).answer(prompt("\0 ä € 🦙 <|im_end|>", max_tokens=3))


def test_an_id_in_use_breaks_the_protocol(load: Load, endless: Path) -> None:
    driver = load(endless)
    driver.engine.submit(7, prompt(), 1)
    with pytest.raises(WireError, match="request 7 is already under way"):
        driver.engine.submit(7, prompt(), 1)


def test_an_id_may_be_used_again_when_its_request_is_over(load: Load, endless: Path) -> None:
    driver = load(endless)
    for _ in range(2):
        driver.engine.submit(7, prompt(max_tokens=1), 1)
        driver.run()
    assert len(driver.deltas[7]) == 4


def test_a_request_before_the_load_fails() -> None:
    deltas: list[object] = []
    engine = Engine(deltas.append)
    engine.submit(1, CompletionTask(prompt="hi"), 1)
    assert engine.n_rows == 0
    engine.cancel_all()
    assert "before a model was loaded" in str(deltas)
