# SPDX-License-Identifier: Apache-2.0
"""`[request]`: what preprocessing does with a request."""

from typing import Literal

from pydantic import Field

from sprout.config.section import Section


class RequestConfig(Section):
    pack: str = "explicit"
    chat_template: Literal["auto", "chatml", "llama2", "none"] = "auto"
    # Hints that a client may give as request parameters; [] switches all of them off.
    hints: tuple[Literal["sprout_level", "sprout_off", "sprout_task", "sprout_tenant"], ...] = (
        "sprout_level",
        "sprout_off",
        "sprout_task",
        "sprout_tenant",
    )
    # Prompts that arrive rendered in the model's chat template keep their own system block. Switch
    # off where end users' text reaches `text_input` unchecked: then it is always user text.
    accept_rendered: bool = True
    max_prompt_bytes: int = Field(1 << 20, ge=1)
    flights: int = Field(4096, ge=16, le=65536)  # in the ledger, per preprocessing instance
