"""Between text or pictures and token ids. Imports neither torch nor fastapi."""
