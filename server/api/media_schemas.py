"""Fields about pictures and videos: where they are, how they are read and laid out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from server.api.schema_base import Model, expected
from server.frontend.video_sampling import SEGMENTS_DEFAULT, SEGMENTS_MAX, Sampling


def _url_as_object(value: Any) -> Any:
    if isinstance(value, str):
        return {"url": value}
    if value is not None and not isinstance(value, dict):
        raise expected("a string or an object with a url")
    return value


class ImageUrl(Model):
    url: str = Field(description="data:image/...;base64,...")
    detail: Literal["auto", "low", "high", "original"] | None = Field(
        None, description="Accepted; this model sees every picture at one size."
    )


class VideoUrl(Model):
    url: str = Field(description="data:video/...;base64,...")


AnyImageUrl = Annotated[
    ImageUrl | None, BeforeValidator(_url_as_object, json_schema_input_type=ImageUrl | str)
]
AnyVideoUrl = Annotated[
    VideoUrl | None, BeforeValidator(_url_as_object, json_schema_input_type=VideoUrl | str)
]


class PictureOptions(Model):
    image_layout: Literal["separate", "combined"] | None = Field(
        None,
        description="separate labels each of several pictures where it stands; combined puts all "
        "of them in front of the text, as one picture.",
    )


class VideoOptions(Model):
    num_segments: int | None = Field(
        None, ge=1, le=SEGMENTS_MAX, description="Frames taken of each video. Default: 8."
    )
    num_frames: int | None = Field(
        None, ge=1, le=SEGMENTS_MAX, description="Another name of num_segments (vLLM)."
    )
    bound: (
        Annotated[
            list[Annotated[float, Field(ge=0, le=1e6)]],
            Field(fail_fast=True, min_length=2, max_length=2),
        ]
        | None
    ) = Field(None, description="From and to, in seconds. Default: the whole video.")

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            self.num_segments or self.num_frames or SEGMENTS_DEFAULT,
            (self.bound[0], self.bound[1]) if self.bound else None,
        )


class MediaOptions(Model):
    video: VideoOptions | None = None
