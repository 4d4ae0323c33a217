"""What did the model believe at each step, and which tokens could the strategy have drawn?"""

from dataclasses import dataclass

import torch
from transformers import (
    EtaLogitsWarper,
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from lm_recipes.decoding.contrastive import contrastive_search
from lm_recipes.decoding.dola import PLAUSIBLE, dola
from lm_recipes.decoding.generation import arguments, end_tokens
from lm_recipes.decoding.strategies import Strategy


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
    text: str  # what it adds to the text: nothing, where it is a part of a character that a later token completes
    logprob: float  # nats, under the model's own distribution: comparable between strategies
    drawn: float  # the probability that the strategy gave it
    rank: int  # 1: the model's likeliest token
    kept: int  # tokens the strategy could have taken
    mass: float  # their probability under the model, 0 to 1
    head: list[Candidate]


@dataclass(frozen=True)
class Continuation:
    """What followed a prompt, with the model's opinion of every token in it."""

    text: str
    logprob: float  # nats, the sum over tokens, the end token included
    logprob_per_token: float
    ended: bool  # by an end token; else it was cut
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


def processors(
    strategy: Strategy,
    vocabulary: int,
    device: torch.device | str = "cpu",
    more: LogitsProcessorList | None = None,
    ends: int = 1,
) -> LogitsProcessorList:
    """What makes the distribution a strategy chooses from out of the model's: transformers' own processors, in the
    order of `generate`.

    Args:
        vocabulary: the number of logits. device: a watermark is drawn anew on each kind of device.
        more: processors that `generate` is given (structured text).
        ends: the number of end tokens: of a beam `generate` keeps at least one more token than these.
    """
    settings, found = strategy.settings, LogitsProcessorList()
    least = {"min_tokens_to_keep": ends + 1 if (settings.num_beams or 1) > 1 else 1}
    if settings.repetition_penalty not in (None, 1.0):
        found.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        found.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    found += more or []
    if settings.do_sample:
        found.append(TemperatureLogitsWarper(float(settings.temperature)))
        if settings.top_k:
            found.append(TopKLogitsWarper(settings.top_k, **least))
        if settings.top_p < 1:
            found.append(TopPLogitsWarper(settings.top_p, **least))
        if settings.min_p is not None:
            found.append(MinPLogitsWarper(settings.min_p, **least))
        if settings.typical_p < 1:
            found.append(TypicalLogitsWarper(settings.typical_p, **least))
        if settings.eta_cutoff:
            found.append(EtaLogitsWarper(settings.eta_cutoff, device=device, **least))
    if settings.watermarking_config is not None:
        found.append(settings.watermarking_config.construct_processor(vocabulary, device))
    return found


def drawing_probabilities(
    logits: torch.Tensor, input_ids: torch.Tensor, strategy: Strategy, made: LogitsProcessorList | None = None
) -> torch.Tensor:
    """The distribution a strategy chooses from.

    Args:
        logits: [batch, vocabulary].
        input_ids: [batch, length], the tokens so far (for penalties).
        strategy: greedy search puts all mass on the likeliest token; beam search cuts nothing; contrastive search and
            DoLa have the model's probabilities of their candidates, among which they choose by more than these.
        made: its `processors`, where they are at hand.

    Returns:
        float32 [batch, vocabulary]; rows sum to 1, a token that was cut off has 0.
    """
    made = processors(strategy, logits.shape[-1], logits.device) if made is None else made
    scores = made(input_ids, logits.float())
    if strategy.method is contrastive_search:
        scores = TopKLogitsWarper(strategy.extra["top_k"])(input_ids, scores)
    elif strategy.method is dola:
        scores = MinPLogitsWarper(PLAUSIBLE)(input_ids, scores)
    elif not strategy.settings.do_sample and (strategy.settings.num_beams or 1) == 1:
        return torch.zeros_like(scores).scatter(-1, scores.argmax(dim=-1, keepdim=True), 1.0)
    return scores.softmax(dim=-1)


def explain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: list[int],
    continuation: list[int],
    strategy: Strategy,
    head: int = 10,
) -> Continuation:
    """Each token of `continuation` beside the `head` likeliest ones the model saw in its place."""
    ends, steps = end_tokens(model, tokenizer), []
    more = arguments(strategy, tokenizer, ends, len(prompt)).get("logits_processor")
    logits = step_logits(model, prompt, continuation) if continuation else torch.empty(0, 0)
    made = processors(strategy, logits.shape[-1], model.device, more, len(ends))
    for position, text in enumerate(_pieces(tokenizer, continuation)):
        so_far = torch.tensor([prompt + continuation[:position]], device=model.device)
        drawn = drawing_probabilities(logits[position : position + 1].to(model.device), so_far, strategy, made)[0]
        steps.append(_step(tokenizer, logits[position], drawn.cpu(), continuation[position], text, head))
    total = sum(step.logprob for step in steps)
    return Continuation(
        text=tokenizer.decode(continuation, skip_special_tokens=True),
        logprob=total,
        logprob_per_token=total / max(len(steps), 1),
        ended=bool(continuation) and continuation[-1] in ends,
        tokens=steps,
    )


def _pieces(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> list[str]:
    """What each token adds to the text; of a character in several tokens the last one adds all."""
    pieces, before = [], ""
    for end in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:end])
        if text.endswith("\ufffd") and end < len(tokens):
            pieces.append("")
            continue
        pieces.append(text[len(before) :])
        before = text
    return pieces


def _step(
    tokenizer: PreTrainedTokenizerBase, logits: torch.Tensor, drawn: torch.Tensor, chosen: int, text: str, head: int
) -> Step:
    logprobs = logits.log_softmax(dim=-1)
    likeliest = logprobs.topk(min(head, len(logprobs))).indices.tolist()
    return Step(
        token=tokenizer.decode([chosen]),
        id=chosen,
        text=text,
        logprob=logprobs[chosen].item(),
        drawn=drawn[chosen].item(),
        rank=int((logprobs > logprobs[chosen]).sum()) + 1,
        kept=int((drawn > 0).sum()),
        mass=logprobs.exp()[drawn > 0].sum().item(),
        head=[Candidate(tokenizer.decode([i]), i, logprobs[i].exp().item(), drawn[i].item()) for i in likeliest],
    )


def render(continuation: Continuation, *, text: bool = True, probabilities: bool = False) -> str:
    """A continuation for the terminal; with `probabilities`, the first distribution and every chosen token."""
    tokens = continuation.tokens
    lines = [continuation.text] if text else []
    lines.append(
        f"[{len(tokens)} tokens, log-probability {continuation.logprob:.2f} nats, "
        f"{continuation.logprob_per_token:.2f} per token]"
    )
    if probabilities and tokens:
        first = tokens[0]
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
