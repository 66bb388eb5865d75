"""One training objective a file: what is asked of a sequence, and what a wrong answer costs."""

from typing import Annotated

from pydantic import Field

from headrace.objectives.causal import CausalLM
from headrace.objectives.continuation import Continuation

ObjectiveConfig = Annotated[CausalLM | Continuation, Field(discriminator="name")]

__all__ = ["CausalLM", "Continuation", "ObjectiveConfig"]
