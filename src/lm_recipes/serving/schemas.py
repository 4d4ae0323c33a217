"""What may a request say? What is not here is refused by name, never ignored in silence."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

# What clients send though it asks for nothing; another value of these is refused.
IDLE = {
    "frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}, "best_of": 1, "echo": False, "store": False,
    "tools": [],
}  # fmt: skip
MAX_CHOICES, MAX_PROMPTS, MAX_TEXTS = 16, 16, 64
SEEDS = 2**63 - 1


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no character") from None
    return text


def _some(text: str) -> str:
    if not text.strip():
        raise ValueError("has no word in it")
    return text


Text = Annotated[str, AfterValidator(_encodable)]
SomeText = Annotated[Text, AfterValidator(_some)]
Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, fail_fast=True)]


class Asked(BaseModel):
    """A field that is null or idle is as good as left out; numbers are numbers and not strings that look like them."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _what_counts(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None and value != IDLE.get(key, ...)}


class Named(Asked):
    model: Text | None = Field(None, description="One of /v1/models; default: the first.")


# --- GPT ---


class StreamOptions(Asked):
    include_usage: bool = Field(False, description="A last chunk with the token counts.")
    include_obfuscation: bool = Field(False, description="Taken and ignored.")


class Schema(Asked):
    """OpenAI's wrapping of a JSON schema; its name and description are for the reader."""

    name: Text = ""
    description: Text = ""
    strict: bool = True
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(Asked):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None

    @model_validator(mode="after")
    def _complete(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type json_schema, and only with it")
        return self


class Decoding(Named):
    """What chat and plain completions share."""

    max_tokens: int | None = Field(None, ge=1, description="Tokens after which a choice is cut.")
    temperature: float = Field(1.0, ge=0, le=100, description="Below 1 sharpens; below 0.01 takes the likeliest.")
    top_p: float = Field(1.0, ge=0, le=1, description="Keep the fewest tokens of mass p.")
    top_k: int = Field(0, ge=0, le=1_000_000, description="Keep the k likeliest tokens; 0: all.")
    min_p: float = Field(0.0, ge=0, le=1, description="Keep tokens of at least p times the best's probability.")
    repetition_penalty: float = Field(1.0, ge=0.1, le=10, description="Above 1: repeat less.")
    seed: int | None = Field(None, ge=0, le=SEEDS, description="The same seed draws the same text.")
    n: int = Field(1, ge=1, le=MAX_CHOICES, description="Choices for each prompt.")
    stop: Text | Annotated[list[Text], Field(max_length=8)] = Field(
        default_factory=list, description="Strings before which a choice ends."
    )
    stream: bool = Field(False, description="Server-sent events, a token or so each.")
    stream_options: StreamOptions = Field(default_factory=StreamOptions)
    user: Text | None = Field(None, description="Taken and ignored.")
    response_format: ResponseFormat | None = Field(None, description="Hold the text to JSON, or to a JSON schema.")

    def json_schema(self) -> dict[str, Any] | None:
        """What the text has to match; None: any text will do."""
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        return wanted.json_schema.schema_ if wanted.json_schema else {"type": "object"}

    def stops(self) -> tuple[str, ...]:
        return tuple(stop for stop in ([self.stop] if isinstance(self.stop, str) else self.stop) if stop)

    def top(self) -> int | None:
        """Likeliest tokens wanted beside each; None: no log-probabilities."""
        raise NotImplementedError


class Part(BaseModel):
    model_config = ConfigDict(strict=True)

    type: Literal["text"]
    text: Text


class Message(BaseModel):
    """A turn. Whatever else clients send back with a turn (refusal, annotations) is left aside."""

    model_config = ConfigDict(strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[Part] | None = None

    def turn(self) -> dict[str, str]:
        text = self.content or ""
        if not isinstance(text, str):
            text = "".join(part.text for part in text)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class Chat(Decoding):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = Field(None, ge=1, description="The newer name of max_tokens.")
    logprobs: bool = Field(False, description="The log-probability of each token under the model itself.")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="Likeliest tokens beside each; needs logprobs.")

    @model_validator(mode="after")
    def _belongs(self) -> "Chat":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.max_tokens and self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens mean the same; give one of them")
        return self

    def top(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class Completion(Decoding):
    """`POST /v1/completions`."""

    prompt: (
        Text
        | Ids
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[Ids], Field(min_length=1, max_length=MAX_PROMPTS)]
    ) = Field(description="A text, its token ids, or several of either.")
    logprobs: int | None = Field(None, ge=0, le=20, description="Likeliest tokens beside each; 0: the chosen alone.")

    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt

    def top(self) -> int | None:
        return self.logprobs


# --- BERT ---


class Texts(Named):
    """`POST /tag` and `POST /embed`."""

    texts: Annotated[list[SomeText], Field(min_length=1, max_length=MAX_TEXTS)]


class ClassifyAsked(Texts):
    """`POST /classify`."""

    evidence: bool = Field(False, description="How much each word moves each class: the text is read without it.")

    @model_validator(mode="after")
    def _one(self) -> "ClassifyAsked":
        if self.evidence and len(self.texts) > 1:
            raise ValueError("evidence takes a forward pass for each word; ask for one text at a time")
        return self


class FillMaskAsked(Texts):
    """`POST /fill-mask`: texts with [MASK] in them."""

    top_k: int = Field(5, ge=1, le=100, description="Words for each [MASK].")


class AnswerAsked(Named):
    """`POST /answer`."""

    question: SomeText
    context: SomeText = Field(max_length=100_000, description="The text whose words answer it.")
    n_best: int = Field(3, ge=1, le=20)


class ChooseAsked(Named):
    """`POST /choose`."""

    question: SomeText
    choices: Annotated[list[SomeText], Field(min_length=2, max_length=20)]
    context: Text = ""


class Embeddings(Named):
    """`POST /v1/embeddings`, OpenAI's form of /embed."""

    input: SomeText | Annotated[list[SomeText], Field(min_length=1, max_length=MAX_TEXTS)]
    encoding_format: Literal["float", "base64"] = "float"
    user: Text | None = Field(None, description="Taken and ignored.")
