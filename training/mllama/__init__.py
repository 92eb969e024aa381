"""Mllama: its checkpoint files, and the student model."""
