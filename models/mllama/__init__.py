"""Mllama: Llama 3.2 Vision in 11 and 90 billion parameters, a Llama that sees through cross-attention (Meta)."""
