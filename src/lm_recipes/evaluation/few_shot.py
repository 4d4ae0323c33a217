"""How well does a decoder classify when it is only asked to, with a few examples before the question?

Label words are scored by their log-probability after the prompt; nothing is trained and nothing is generated.
"""

import copy
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from tqdm import tqdm

from lm_recipes.alignment.templates import encode, render
from lm_recipes.evaluation.classification import classification_metrics, interval
from lm_recipes.launch import UserError
from lm_recipes.objectives.replay import document_tokens

# What has no content, so that a preference for one of the labels is the prompt's alone (arXiv 2102.09690, section 5).
CONTENT_FREE = ("N/A", "[MASK]", "")
SCORINGS = ("plain", "length", "calibrated", "length_calibrated")


@dataclass(frozen=True)
class Prompt:
    """How examples and questions are written, and the words that stand for the classes.

    Plain: `instruction`, then texts and labels by name, an empty line between examples. Chat: the instruction is the
    system's, each text a user's turn and its label the assistant's, in the tokenizer's template.
    """

    words: tuple[str, ...]  # by class id
    instruction: str | None = None
    text_name: str = "Text"
    label_name: str = "Label"
    chat: bool = False

    def questions(self, tokenizer, texts: Sequence[str], examples: Sequence[tuple[str, int]]) -> list[list[int]]:
        """Token ids of a prompt for each text: all but the label word.

        Args:
            examples: texts with their class ids, shown before every text.

        Raises:
            UserError: a chat, and the tokenizer has no template.
        """
        if self.chat:
            return [self._chat(tokenizer, text, examples) for text in texts]
        shown = [self._written(text, self.words[label]) for text, label in examples]
        head = [self.instruction] if self.instruction else []
        prompts = ["\n\n".join([*head, *shown, self._written(text)]) for text in texts]
        start, _ = document_tokens(tokenizer)
        return [[start, *tokenizer(prompt, add_special_tokens=False)["input_ids"]] for prompt in prompts]

    def answers(self, tokenizer) -> list[list[int]]:
        """Token ids of the label words as they follow a question; in a chat with the token that ends a turn, as one
        label may begin another.

        Raises:
            UserError: two labels are the same tokens.
        """
        if self.chat:
            answers = [self._chat_answer(tokenizer, word) for word in self.words]
        else:
            answers = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in self.words]
        if len(set(map(tuple, answers))) < len(answers) or not all(answers):
            raise UserError(
                f"--label_words: {', '.join(self.words)} are not told apart by the tokenizer; choose others"
            )
        return answers

    def _written(self, text: str, word: str | None = None) -> str:
        return f"{self.text_name}: {text}\n{self.label_name}:" + (f" {word}" if word is not None else "")

    def _messages(self, text: str, examples: Sequence[tuple[str, int]]) -> list[dict]:
        messages = [{"role": "system", "content": self.instruction}] if self.instruction else []
        for shown, label in examples:
            messages += [{"role": "user", "content": shown}, {"role": "assistant", "content": self.words[label]}]
        return [*messages, {"role": "user", "content": text}]

    def _chat(self, tokenizer, text: str, examples: Sequence[tuple[str, int]]) -> list[int]:
        if not tokenizer.chat_template:
            raise UserError("--chat: this model has no chat template; fine-tune it on dialogues, or drop --chat")
        messages = self._messages(text, examples)
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]

    def _chat_answer(self, tokenizer, word: str) -> list[int]:
        before = self._messages("a", ())
        asked = self._chat(tokenizer, "a", ())
        whole = tokenizer.apply_chat_template([*before, {"role": "assistant", "content": word}], return_dict=True)
        ids = whole["input_ids"]
        if ids[: len(asked)] != asked:
            raise UserError("--chat: this template writes an answer otherwise than it asks for one; drop --chat")
        ids = ids[len(asked) :]
        ends = [place for place, token in enumerate(ids, start=1) if token in tokenizer.all_special_ids]
        return ids[: ends[0]] if ends else ids


def cut_texts(tokenizer, texts: Sequence[str], max_length: int) -> tuple[list[str], int]:
    """Texts of at most `max_length` tokens each, cut at the end, and how many had to be cut."""
    if not texts:
        return [], 0
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    cut, number = [], 0
    for text, offsets in zip(texts, encoded["offset_mapping"], strict=True):
        long = len(offsets) > max_length
        cut.append(text[: offsets[max_length - 1][1]] if long else text)
        number += long
    return cut, number


def examples_of(texts: Sequence[str], labels: Sequence[int], shots: int, seed: int) -> list[int]:
    """The places of `shots` rows of each class: those whose hash of seed and text is lowest, in the order of that hash,
    so that classes come mixed.

    Raises:
        UserError: a class has not so many rows.
    """
    order = by_hash(texts, seed)
    chosen = {label: [place for place in order if labels[place] == label][:shots] for label in sorted(set(labels))}
    few = min(chosen, key=lambda label: len(chosen[label]))
    if len(chosen[few]) < shots:
        raise UserError(f"--shots {shots}: class {few} has {len(chosen[few])} rows in the training split; take fewer")
    drawn = {place for places in chosen.values() for place in places}
    return [place for place in order if place in drawn]


def by_hash(texts: Sequence[str], seed: int) -> list[int]:
    """The places of texts in the order of a hash of seed and text, which does not depend on theirs."""
    hashes = [hashlib.blake2b(f"{seed}\0{text}".encode("utf-8", "surrogatepass")).digest() for text in texts]
    return sorted(range(len(texts)), key=hashes.__getitem__)


@torch.inference_mode()
def log_probabilities(
    model, prompts: Sequence[list[int]], answers: Sequence[list[int]], batch_size: int = 16
) -> np.ndarray:
    """Log-probability of each answer after each prompt, in nats: float64 `[prompts, answers]`.

    What all prompts begin with is read once; its keys and values serve all rows. Rows of a batch have one length, so
    nothing is padded, and what stands in a batch beside a row makes no difference to it.

    Args:
        model: a causal LM in eval mode.
        prompts: token ids, one or more each. answers: token ids, one or more each.
    """
    shared = _shared_prefix(prompts)
    cache = None
    if shared:
        ids = torch.tensor([shared], device=model.device)
        cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
    found = np.zeros((len(prompts), len(answers)))
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    with tqdm(total=len(order), desc="asking", leave=False, disable=None) as bar:
        for _, alike in groupby(order, key=lambda row: len(prompts[row])):
            alike = list(alike)
            for first in range(0, len(alike), batch_size):
                rows = alike[first : first + batch_size]
                found[rows] = _batch(model, cache, [prompts[row][len(shared) :] for row in rows], answers)
                bar.update(len(rows))
    return found


def _shared_prefix(prompts: Sequence[list[int]]) -> list[int]:
    """What all prompts begin with; of each at least one token is left."""
    first, last = min(prompts), max(prompts)  # in the order of a dictionary: the others are between them
    pairs = zip(first, last, strict=False)
    same = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))
    return first[: min(same, min(map(len, prompts)) - 1)]


def _batch(model, cache, rests: list[list[int]], answers: Sequence[list[int]]) -> np.ndarray:
    """Scores `[rows, answers]` of rows that go on with `rests`, of one length, after what is in the cache."""
    ids = torch.tensor(rests, device=model.device)
    read = None if cache is None else _branch(cache, len(rests))
    output = model(input_ids=ids, past_key_values=read, use_cache=True, logits_to_keep=1)
    next_token = output.logits[:, -1].float().log_softmax(-1)
    scores = next_token[:, [answer[0] for answer in answers]].double()
    for number, answer in enumerate(answers):
        if len(answer) > 1:
            ids = torch.tensor([answer[:-1]] * len(rests), device=model.device)
            logits = model(input_ids=ids, past_key_values=_branch(output.past_key_values), use_cache=True).logits
            wanted = torch.tensor(answer[1:], device=model.device).expand(len(rests), -1)
            later = logits.float().log_softmax(-1).gather(-1, wanted[..., None]).squeeze(-1)
            scores[:, number] += later.double().sum(-1)
    return scores.cpu().numpy()


def _branch(cache, rows: int = 1):
    """The same keys and values (for each of `rows` rows), to go on from without changing the cache itself.

    A layer of a cache puts new tensors in the place of its old ones, and never writes into them.
    """
    branch = copy.copy(cache)
    branch.layers = [copy.copy(layer) for layer in cache.layers]
    if rows > 1:
        branch.batch_repeat_interleave(rows)
    return branch


def score(plain: np.ndarray, content_free: np.ndarray, lengths: Sequence[int]) -> dict[str, np.ndarray]:
    """What answers are chosen by, under each of SCORINGS: float64 `[rows, answers]`.

    `length`: per token, so that long label words are not at a disadvantage. `calibrated`: divided by how likely the
    answer is where there is nothing to answer, p / p_cf (contextual calibration, arXiv 2102.09690), where p_cf is the
    mean over what has no content.

    Args:
        plain: log-probabilities `[rows, answers]`. content_free: of `CONTENT_FREE`, `[texts, answers]`.
        lengths: tokens of the answers.
    """
    found = {}
    for name, divide in (("plain", np.ones(len(lengths))), ("length", np.asarray(lengths, dtype=float))):
        found[name] = plain / divide
        prior = _softmax(content_free / divide).mean(axis=0)
        found["calibrated" if name == "plain" else "length_calibrated"] = found[name] - np.log(prior)
    return found


def _softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def summary(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Mean metrics of class ids int `[seeds, rows]`, with a 95 % interval of the accuracy over rows."""
    per_seed = [classification_metrics(row, references) for row in predictions]
    means = {name: float(np.mean([metrics[name] for metrics in per_seed])) for name in per_seed[0]}
    low, high = interval(predictions == references)
    return means | {"accuracy_low": low, "accuracy_high": high, "rows": len(references)}


def words_for(names: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """The word that is said for each class: its name, or as `given` (class=word) says.

    Raises:
        UserError: something else is given, or for a class that there is not.
    """
    words = dict(zip(names, names, strict=True))
    for pair in given:
        name, equals, word = pair.partition("=")
        if not equals or not word.strip() or name not in words:
            raise UserError(f"--label_words {pair}: write class=word; the classes are {', '.join(names)}")
        words[name] = word.strip()
    return tuple(words[name] for name in names)


def kinds_of_answers(conversations: Sequence[list[dict]], most: int = 20) -> list[str]:
    """The answers that dialogues end in, the commonest first, where they are few enough to be classes; else none."""
    kinds = Counter(messages[-1]["content"] for messages in conversations).most_common()
    return [kind for kind, _ in kinds] if 2 <= len(kinds) <= min(most, len(conversations) // 5) else []


def answering(model, tokenizer, conversations: Sequence[list[dict]], kinds: Sequence[str]) -> dict[str, float]:
    """`accuracy` of the answers with its 95 % interval over dialogues, and that of always saying the first kind."""
    right = right_answers(model, tokenizer, conversations, kinds)
    low, high = interval(right)
    always = np.mean([messages[-1]["content"] == kinds[0] for messages in conversations])
    means = {"accuracy": float(right.mean()), "accuracy_of_the_commonest_answer": float(always)}
    return means | {"accuracy_low": low, "accuracy_high": high}


def right_answers(model, tokenizer, conversations: Sequence[list[dict]], kinds: Sequence[str]) -> np.ndarray:
    """Whether the likeliest of `kinds` is what a dialogue ends in: bool `[conversations]`.

    Args:
        tokenizer: with a chat template that has generation markers.
    """
    training = model.training
    prompts = [
        render(tokenizer, messages[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
        for messages in conversations
    ]
    said = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": kind}] for kind in kinds]
    answers = [[label for label in encode(tokenizer, one)["labels"] if label != -100] for one in said]
    chosen = log_probabilities(model.eval(), prompts, answers).argmax(1)
    model.train(training)
    return np.array(
        [kinds[place] == messages[-1]["content"] for place, messages in zip(chosen, conversations, strict=True)]
    )
