"""Reach files wherever they lie, with whole-object writes that one writer wins; and keep what runs on them alive."""
