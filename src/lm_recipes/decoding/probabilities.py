"""What did the model believe at each step, and which tokens could the strategy have drawn?"""

from dataclasses import dataclass

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)


@dataclass(frozen=True)
class Candidate:
    """A token that could have come next."""

    token: str
    id: int
    probability: float  # the model's own, before temperature and cuts
    drawn: float  # the probability that the strategy gives it; 0: cut off


@dataclass(frozen=True)
class Step:
    """The token that came next, and the head of the distribution it came from."""

    token: str
    id: int
    logprob: float  # nats, under the model's own distribution: comparable between strategies
    rank: int  # 1: the model's likeliest token
    kept: int  # tokens the strategy could have taken
    head: list[Candidate]


@dataclass(frozen=True)
class Continuation:
    """What followed a prompt, with the model's opinion of every token in it."""

    text: str
    logprob: float  # nats, the sum over tokens, the end token included
    logprob_per_token: float
    tokens: list[Step]


def step_logits(model: PreTrainedModel, prompt: list[int], continuation: list[int]) -> torch.Tensor:
    """Logits that predicted each token of `continuation`, from one forward pass.

    Returns:
        float32 [len(continuation), vocabulary], on the CPU.
    """
    input_ids = torch.tensor([prompt + continuation[:-1]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=input_ids, use_cache=False, logits_to_keep=len(continuation)).logits
    return logits[0].float().cpu()


def drawing_probabilities(logits: torch.Tensor, input_ids: torch.Tensor, settings: GenerationConfig) -> torch.Tensor:
    """The distribution a strategy draws from, by transformers' own processors in the order of `generate`.

    Args:
        logits: [batch, vocabulary].
        input_ids: [batch, length], the tokens so far (for the repetition penalty).
        settings: of one strategy. Greedy search puts all mass on the likeliest token; beam search cuts nothing.

    Returns:
        float32 [batch, vocabulary]; rows sum to 1, a token that was cut off has 0.
    """
    processors = LogitsProcessorList()
    if settings.repetition_penalty not in (None, 1.0):
        processors.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.do_sample:
        processors.append(TemperatureLogitsWarper(float(settings.temperature)))
        if settings.top_k:
            processors.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            processors.append(TopPLogitsWarper(settings.top_p))
        if settings.min_p is not None:
            processors.append(MinPLogitsWarper(settings.min_p))
        if settings.typical_p < 1:
            processors.append(TypicalLogitsWarper(settings.typical_p))
    scores = processors(input_ids, logits.float())
    if settings.do_sample or (settings.num_beams or 1) > 1:
        return scores.softmax(dim=-1)
    return torch.zeros_like(scores).scatter(-1, scores.argmax(dim=-1, keepdim=True), 1.0)


def explain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: list[int],
    continuation: list[int],
    settings: GenerationConfig,
    head: int = 10,
) -> Continuation:
    """Each token of `continuation` beside the `head` likeliest ones the model saw in its place."""
    steps = []
    for position, logits in enumerate(step_logits(model, prompt, continuation)):
        so_far = torch.tensor([prompt + continuation[:position]])
        drawn = drawing_probabilities(logits[None], so_far, settings)[0]
        steps.append(_step(tokenizer, logits, drawn, continuation[position], head))
    total = sum(step.logprob for step in steps)
    text = tokenizer.decode(continuation, skip_special_tokens=True)
    return Continuation(text, total, total / len(steps), steps)


def _step(
    tokenizer: PreTrainedTokenizerBase, logits: torch.Tensor, drawn: torch.Tensor, chosen: int, head: int
) -> Step:
    logprobs = logits.log_softmax(dim=-1)
    likeliest = logprobs.topk(min(head, len(logprobs))).indices.tolist()
    return Step(
        token=tokenizer.decode([chosen]),
        id=chosen,
        logprob=logprobs[chosen].item(),
        rank=int((logprobs > logprobs[chosen]).sum()) + 1,
        kept=int((drawn > 0).sum()),
        head=[Candidate(tokenizer.decode([i]), i, logprobs[i].exp().item(), drawn[i].item()) for i in likeliest],
    )


def render(continuation: Continuation, *, text: bool = True, probabilities: bool = False) -> str:
    """A continuation for the terminal; with `probabilities`, the first distribution and every chosen token."""
    first, tokens = continuation.tokens[0], continuation.tokens
    lines = [continuation.text] if text else []
    lines.append(
        f"[{len(tokens)} tokens, log-probability {continuation.logprob:.2f} nats, "
        f"{continuation.logprob_per_token:.2f} per token]"
    )
    if probabilities:
        lines += [
            f"\n  next token ({first.kept} kept)",
            f"  {'token':<20} {'model':>8} {'drawn':>8}",
        ]
        for candidate in first.head:
            drawn = f"{candidate.drawn:8.4f}" if candidate.drawn else "     cut"
            lines.append(f"  {candidate.token!r:<20} {candidate.probability:8.4f} {drawn}")
        lines.append(f"\n  {'chosen':<20} {'nats':>8} {'rank':>8} {'kept':>8}")
        lines += [f"  {step.token!r:<20} {step.logprob:8.3f} {step.rank:8d} {step.kept:8d}" for step in tokens]
    return "\n".join(lines)
