"""What a client may send and how long it may take: part of the settings tree.

Every bound is named in the error that it causes. Bounds that belong to a format or to an API and
that no operator has a reason to move stand beside the code that checks them.
"""

from __future__ import annotations

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt


class Limits(BaseModel):
    """Bounds on what comes in."""

    max_body_bytes: PositiveInt = Field(
        64 * 2**20, description="Largest request body; base64 pictures count as they are sent."
    )
    max_total_body_bytes: PositiveInt = Field(
        2**30,
        description="Bytes of all request bodies that are being read or worked on; beyond it "
        "requests are answered 429.",
    )
    max_json_values: PositiveInt = Field(
        300_000, description="Commas and brackets in a request body at most."
    )
    max_url_bytes: PositiveInt = Field(
        8192, description="Longest path and query of a request, in bytes."
    )
    max_header_bytes: PositiveInt = Field(
        16_384, description="Header fields of a request together, in bytes."
    )
    max_header_fields: PositiveInt = Field(100, description="Header fields of a request at most.")
    max_image_bytes: PositiveInt = Field(
        20 * 2**20, description="Largest picture file, after base64 decoding."
    )
    max_image_pixels: PositiveInt = Field(
        50_000_000, description="Largest picture in pixels; checked before it is decoded."
    )
    max_total_image_pixels: PositiveInt = Field(
        200_000_000,
        description="Pixels that are decoded at the same time; further pictures wait.",
    )
    max_request_image_pixels: PositiveInt = Field(
        400_000_000, description="Pixels of all pictures of a request together."
    )
    image_timeout_s: PositiveFloat = Field(
        5.0,
        description="Longest work on one picture, in seconds of processor time; then the request "
        "is answered 400.",
    )
    max_images: PositiveInt = Field(64, description="Pictures in a request at most.")
    max_video_bytes: PositiveInt = Field(
        100 * 2**20,
        description="Largest video file, after base64 decoding; --max-image-pixels bounds a frame. "
        "A data: URL is a part of the body and ends at --max-body-bytes, by default at 48 MiB.",
    )
    video_timeout_s: PositiveFloat = Field(
        20.0, description="Longest work on one video, in seconds."
    )
    max_messages: PositiveInt = Field(2048, le=2048, description="Messages in a request at most.")
    max_text_chars: PositiveInt = Field(
        4_000_000, description="Characters of all texts of a prompt, before tokens are counted."
    )
    max_choices: PositiveInt = Field(16, description="Largest `n` of a request.")
    max_output_tokens: PositiveInt | None = Field(
        None,
        description="Tokens of one answer at most; where a request does not say, it ends there. "
        "Default: the room in the context.",
    )
    max_total_output_tokens: PositiveInt = Field(
        65_536, description="Tokens of all answers of a request together, `n` times the longest."
    )
    max_top_logprobs: int = Field(
        20, ge=0, le=20, description="Alternatives reported beside each token at most."
    )
    max_logit_biases: int = Field(
        1024, ge=0, le=1024, description="Entries of `logit_bias` at most."
    )
    max_stop_strings: PositiveInt = Field(16, description="Stop strings in a request at most.")
    grammar_timeout_s: PositiveFloat = Field(
        5.0,
        description="Longest time to build the grammar of a JSON schema, a regular expression or "
        "tools; what takes longer is answered 400.",
    )
    max_connections: PositiveInt = Field(
        2048, description="Open connections; beyond it idle ones are closed, then new ones refused."
    )
    max_waiting_requests: PositiveInt = Field(
        1024, description="Choices that may be open at once; beyond it requests are answered 429."
    )
    max_waiting_prompt_tokens: PositiveInt = Field(
        1_000_000,
        description="Tokens of all prompts whose answers have not begun; beyond it requests are "
        "answered 429.",
    )
    header_timeout_s: PositiveFloat = Field(
        10.0, description="Time to send the head of a request, in seconds."
    )
    body_timeout_s: PositiveFloat = Field(
        120.0, description="Time to send the body of a request, in seconds."
    )
    body_pause_s: PositiveFloat = Field(
        15.0, description="Longest pause while a body is sent, in seconds."
    )
    write_timeout_s: PositiveFloat = Field(
        30.0,
        description="How long a client may stop reading its answer before it is cut off, in "
        "seconds.",
    )
    idle_connection_s: PositiveFloat = Field(
        20.0, description="How long an idle connection is kept, in seconds."
    )
    queue_timeout_s: PositiveFloat = Field(
        60.0, description="Longest wait for the first token, in seconds."
    )
    request_timeout_s: PositiveFloat = Field(
        600.0, description="Longest time that a request may take, in seconds."
    )
    quarantine_deaths: PositiveInt = Field(
        2,
        description="Deaths of the engine in a step with an input until that input is refused with "
        "400.",
    )
    quarantine_s: PositiveFloat = Field(
        600.0, description="How long such deaths are remembered, in seconds."
    )
    key_requests_per_minute: PositiveInt | None = Field(
        None, description="Requests a minute of a key whose line does not say. Default: no limit."
    )
    key_tokens_per_minute: PositiveInt | None = Field(
        None, description="Tokens a minute of a key whose line does not say. Default: no limit."
    )
    key_concurrent: PositiveInt | None = Field(
        None, description="Requests at once of a key whose line does not say. Default: no limit."
    )
    response_store_entries: int = Field(
        1000, ge=0, description="Responses kept for GET and `previous_response_id`; 0 keeps none."
    )
    response_store_ttl_s: PositiveFloat = Field(
        3600.0, description="How long a response is kept, in seconds."
    )
    response_store_bytes: PositiveInt = Field(
        256 * 2**20,
        description="Memory for kept responses and what they answered, pictures included; the "
        "least recently used are dropped first.",
    )

    def key_limits(self) -> dict[str, int | None]:
        """Limits of keys that have none of their own."""
        return {
            "requests_per_minute": self.key_requests_per_minute,
            "tokens_per_minute": self.key_tokens_per_minute,
            "concurrent": self.key_concurrent,
        }
