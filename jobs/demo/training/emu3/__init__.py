"""Emu3: its files."""
