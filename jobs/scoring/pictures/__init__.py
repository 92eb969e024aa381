"""Metrics of pictures over what detectors and feature networks, which the user supplies, have made of them."""
