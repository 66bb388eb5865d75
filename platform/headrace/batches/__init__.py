"""Which sequences an optimizer step reads, and reading them."""

from headrace.batches.loader import Loader
from headrace.batches.order import Order

__all__ = ["Loader", "Order"]
