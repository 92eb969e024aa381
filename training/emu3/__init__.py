"""Emu3: its checkpoint files, and how it is trained to draw."""
