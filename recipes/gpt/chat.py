"""Chat with a GPT in the terminal: words as they come, the conversation kept, Ctrl-C to interrupt an answer.

python recipes/gpt/chat.py --model_name_or_path runs/sft
python recipes/gpt/chat.py --model_name_or_path demo:smollm2 --system "Answer in one sentence." --strategy greedy
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from lm_recipes.launch import UserError, parse, recipe

HELP = """/reset          forget the conversation
/system TEXT    instruct the model, and forget the conversation (no TEXT: no instruction)
/save FILE      append the conversation to a .jsonl file, as recipes/gpt/sft.py reads it
/help  /quit    this list; the end (also Ctrl-D)"""


@dataclass
class ChatArguments:
    """Who to chat with, and how it speaks."""

    model_name_or_path: str = field(metadata={"help": "Model or adapter directory, demo:smollm2, or Hub id."})
    system: str | None = field(default=None, metadata={"help": "An instruction before the conversation."})
    strategy: str = field(default="nucleus", metadata={"help": "greedy, sample, nucleus, min_p, contrastive, ..."})
    temperature: float | None = field(default=None, metadata={"help": "Below 1 sharpens, above flattens (1)."})
    top_p: float | None = field(default=None, metadata={"help": "nucleus: keep the fewest of mass p (0.9)."})
    repetition_penalty: float = field(default=1.0, metadata={"help": "Above 1: repeat less."})
    max_new_tokens: int = field(default=256, metadata={"help": "Tokens after which an answer is cut."})
    seed: int = field(default=0, metadata={"help": "The same seed and the same words: the same conversation."})


def main() -> None:
    (args,) = parse(ChatArguments, description=__doc__)
    from transformers import AutoModelForCausalLM

    from lm_recipes.decoding.loading import load_for_inference
    from lm_recipes.decoding.strategies import refuse_unread, strategy
    from lm_recipes.models.families import positions_of

    options = {"temperature": args.temperature, "top_p": args.top_p}
    refuse_unread([args.strategy], options)
    shared = {"max_new_tokens": args.max_new_tokens, "repetition_penalty": args.repetition_penalty}
    how = strategy(args.strategy, **shared, **options)
    if not how.streams:
        raise UserError(f"--strategy {args.strategy}: chooses at the end, so no words can be shown as they come")
    model, tokenizer = load_for_inference(AutoModelForCausalLM, args.model_name_or_path)
    if not tokenizer.chat_template:
        raise UserError(f"{args.model_name_or_path}: not trained on chats; use recipes/gpt/generate.py")
    context = min(positions_of(model.config) or 10**9, tokenizer.model_max_length)
    how.settings.max_new_tokens = min(args.max_new_tokens, context // 2)  # the other half is for what was said

    turns = instructed(args.system)
    print(f"{args.model_name_or_path}: write, or /help")
    while (typed := read_line()) is not None:
        if typed.startswith("/"):
            turns = command(typed, turns)
            if turns is None:
                break
        elif typed:
            turns = answer(model, tokenizer, [*turns, {"role": "user", "content": typed}], how, context, args.seed)


def read_line() -> str | None:
    """What was typed, with arrow keys and the lines of before where there is a terminal; None at the end."""
    if sys.stdin.isatty():
        import readline  # noqa: F401  (input() edits lines with it)
    print()
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return None
    except KeyboardInterrupt:  # perhaps meant for an answer that had just ended
        print("\n(/quit or Ctrl-D ends the chat)")
        return ""


def instructed(system: str | None) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}] if system else []


def command(typed: str, turns: list[dict[str, str]]) -> list[dict[str, str]] | None:
    """Do what a line that begins with / says; the conversation after it, or None for the end."""
    name, _, rest = typed.partition(" ")
    if name in ("/quit", "/exit"):
        return None
    if name in ("/reset", "/system"):
        kept = rest.strip() if name == "/system" else next((t["content"] for t in turns if t["role"] == "system"), None)
        print("(forgotten)")
        return instructed(kept)
    if name == "/save" and rest:
        save(Path(rest.strip()), turns)
    else:
        print(HELP)
    return turns


def save(path: Path, turns: list[dict[str, str]]) -> None:
    import json

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
        print(f"(saved: {path})")
    except OSError as error:
        print(f"(not saved: {path}: {error.strerror})")


def answer(model, tokenizer, turns: list[dict[str, str]], how, context: int, seed: int) -> list[dict[str, str]]:
    """Print the model's turn as it comes; the conversation with it. Ctrl-C ends the turn, and what was said stays."""
    from transformers import TextStreamer

    from lm_recipes.decoding.generation import continue_prompts
    from lm_recipes.serving.prompts import fit_turns

    class Saying(TextStreamer):
        said = ""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            self.said += text
            super().on_finalized_text(text, stream_end)

    try:
        ids, kept = fit_turns(tokenizer, turns, context - how.settings.max_new_tokens)
    except UserError as error:
        print(f"({error})")
        return turns[:-1]
    if len(kept) < len(turns):
        print(f"(the first {len(turns) - len(kept)} turns no longer fit; the model does not see them)")
    saying = Saying(tokenizer, skip_prompt=True, skip_special_tokens=True)
    try:
        continue_prompts(model, tokenizer, [ids], how, seed=seed + len(turns), streamer=saying)
    except KeyboardInterrupt:
        saying.end()  # half a word may be waiting for its other half
        print("(interrupted)")
        if not saying.said:
            return turns[:-1]
    return [*turns, {"role": "assistant", "content": saying.said.strip()}]


if __name__ == "__main__":
    recipe(main)
