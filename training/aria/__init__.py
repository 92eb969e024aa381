"""Aria: its files and how it learns."""
