"""Emu3: its files and how it learns to draw."""
