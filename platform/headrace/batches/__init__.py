"""Which sequences an optimizer step reads, and reading them."""

from headrace.batches.loader import Loader, Sequences
from headrace.batches.order import Order
from headrace.batches.replay import Replay, with_replay

__all__ = ["Loader", "Order", "Replay", "Sequences", "with_replay"]
