"""HTTP: routes, request and response shapes, streaming. Never imports torch."""
