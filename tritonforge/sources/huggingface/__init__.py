"""Hugging Face models: which of their files count, what they are for, and how they are loaded and called."""
