"""One training objective a file: what is asked of a sequence, and what a wrong answer costs."""

from headrace.objectives.causal import CausalLM, Example

ObjectiveConfig = CausalLM  # a union discriminated by `name` once there is a second one

__all__ = ["CausalLM", "Example", "ObjectiveConfig"]
