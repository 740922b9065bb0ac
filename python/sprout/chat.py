# SPDX-License-Identifier: Apache-2.0
"""What a model's own chat template says: its family, and the system prompt it falls back to."""

from typing import Any, Literal

from sprout.errors import PrerequisiteError

Family = Literal["chatml", "llama2", "none"]

# Key in tokenizer_config.json, written once at set-up; without it the template itself is asked.
DEFAULT_SYSTEM_KEY = "sprout_default_system_prompt"

_START, _END = "<|im_start|>system\n", "<|im_end|>"


def family(chat_template: str | None) -> Family:
    """Which of the known template families a Jinja chat template belongs to."""
    if chat_template and "<|im_start|>" in chat_template:
        return "chatml"
    if chat_template and "[INST]" in chat_template:
        return "llama2"
    return "none"


def default_system_prompt(chat_template: str | None) -> str | None:
    """The system prompt that a ChatML template puts in where the client brings none.

    None if it puts in none; families other than ChatML have none. Reads it off the rendered
    template, because the text stands there in as many spellings as there are model makers.
    PrerequisiteError if `jinja2` is missing or the template can't be rendered.
    """
    if chat_template is None or family(chat_template) != "chatml":
        return None
    text = _render(chat_template, [{"role": "user", "content": "?"}])
    if not text.startswith(_START):
        return None
    return text.removeprefix(_START).partition(_END)[0]


def _render(chat_template: str, messages: list[dict[str, str]]) -> str:
    try:
        from jinja2 import TemplateError  # noqa: PLC0415 - set-up only
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415
    except ImportError:
        raise PrerequisiteError(
            "the model's chat template can't be read without jinja2: install jinja2, or state the"
            f' default system prompt as "{DEFAULT_SYSTEM_KEY}" in tokenizer_config.json'
        ) from None

    def refuse(message: str) -> None:
        raise TemplateError(message)

    # The environment that the model makers write for (transformers' chat templates).
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    variables: dict[str, Any] = {"bos_token": "", "eos_token": "", "add_generation_prompt": True}
    try:
        return environment.from_string(chat_template).render(messages=messages, **variables)
    except TemplateError as error:
        raise PrerequisiteError(
            f"the model's chat template can't be rendered ({error}): state the default system"
            f' prompt as "{DEFAULT_SYSTEM_KEY}" in tokenizer_config.json'
        ) from None
