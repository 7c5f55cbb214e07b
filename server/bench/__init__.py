"""`internvl-serve bench`: puts load on any server that speaks OpenAI's chat API, and measures it
from outside. Nothing of the daemon is imported here: every server is met as a stranger."""
