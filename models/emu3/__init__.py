"""Emu3: pictures as words of one language, understood and drawn token by token (BAAI)."""
