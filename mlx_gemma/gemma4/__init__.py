"""The only package that knows Gemma 4: loading, the chat template, adapters."""
