# SPDX-License-Identifier: Apache-2.0
"""`[control.tenants.NAME]`: what was promised to whom."""

from typing import Annotated

from pydantic import Field, model_validator

from sprout.config.section import Section

# That a request can carry: as long as a flight keeps it, printable ASCII, no blank at either end.
TenantName = Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,21}[!-~])?$")]


class TenantConfig(Section):
    """What an operator promised to a tenant: one of the two."""

    minimum: float | None = Field(None, ge=0, le=1)  # preference, relative to L0's, of its requests
    opt_out: bool = False  # L0, whatever is decided

    @model_validator(mode="after")
    def _one(self) -> "TenantConfig":
        if self.opt_out == (self.minimum is not None):
            raise ValueError("give a tenant either a minimum or opt_out = true")
        return self
