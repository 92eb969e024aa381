"""Mllama: its files and how it learns."""
