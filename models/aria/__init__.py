"""Aria: a 25-billion-parameter mixture-of-experts model for images and text (rhymes-ai)."""
