"""Worlds for `choreo demo`: each package feeds its topology with events and knows how to tell what came of them."""
