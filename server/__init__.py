"""internvl-serve: an OpenAI-compatible serving daemon for InternVL-Chat-V1-2 and its family."""

__version__ = "0.1.0"
