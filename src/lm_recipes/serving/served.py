"""Which models does a server hold, what can they be asked, and which adapter is on?"""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lm_recipes.decoding.generation import end_tokens
from lm_recipes.decoding.loading import load_for_inference
from lm_recipes.launch import UserError
from lm_recipes.models.families import positions_of
from lm_recipes.models.loading import loading
from lm_recipes.models.packed import pack_linear_layers
from lm_recipes.sources import resolve_model
from lm_recipes.training.adapters import read_config
from lm_recipes.training.saved_adapters import AUTO_CLASSES, load_adapters

# what a model is asked -> the auto class that loads it
ASKED = {
    "generate": "AutoModelForCausalLM",
    "classify": "AutoModelForSequenceClassification",
    "tag": "AutoModelForTokenClassification",
    "answer": "AutoModelForQuestionAnswering",
    "choose": "AutoModelForMultipleChoice",
    "fill-mask": "AutoModelForMaskedLM",
    "embed": "AutoModel",
}


@dataclass
class Served:
    """One model, or one base with several adapters, under the names that requests call them by.

    Attributes:
        model: what is called, with the adapters' layers in it.
        encoders: tokenizers for texts that come in; `tokenizers` are for the thread that calls the model. Encoding
            changes settings of the object, which another thread must not be reading.
        prefixes: name -> float `[P, D]`, of prompt-tuning adapters. ends: name -> ids that end a text.
    """

    asked: str
    paths: dict[str, str]
    model: PreTrainedModel
    tokenizers: dict[str, PreTrainedTokenizerBase]
    adapted: PeftModel | None = None
    encoders: dict[str, PreTrainedTokenizerBase] = field(init=False)
    prefixes: dict[str, torch.Tensor] = field(init=False)
    ends: dict[str, set[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.names = list(self.paths)
        self.encoders = {name: copy.deepcopy(tokenizer) for name, tokenizer in self.tokenizers.items()}
        self.prefixes = _prefixes(self.adapted, self.names)
        self.ends = {}
        if self.asked == "generate":
            self.ends = {name: end_tokens(self.model, tokenizer) for name, tokenizer in self.tokenizers.items()}
        self._active = self.names[0]

    def activate(self, name: str) -> None:
        """Put an adapter on, in the thread that calls the model."""
        if self.adapted is not None and name != self._active:
            self.adapted.set_adapter(name, inference_mode=True)
            self._active = name

    def context(self, name: str) -> int:
        """Tokens that a prompt and its continuation may have, together."""
        longest = min(positions_of(self.model.config) or 10**9, self.tokenizers[name].model_max_length)
        return longest - len(self.prefixes.get(name, ()))


def asked_of(name: str) -> str:
    """What the model under a name can be asked: a key of `ASKED`.

    Raises:
        UserError: there is no model, or one of a class that is not served.
    """
    path = resolve_model(name)
    if Path(path, "adapter_config.json").is_file():
        config = read_config(path)
        class_name = AUTO_CLASSES.get(config.task_type) or (config.auto_mapping or {}).get("base_model_class", "")
    else:
        if Path(path).is_dir() and not Path(path, "config.json").is_file():
            raise UserError(f"{name}: this directory holds no model (no config.json or adapter_config.json)")
        with loading(name):
            class_name = (AutoConfig.from_pretrained(path).architectures or [""])[0]
    class_name = class_name.replace("GPT2LMHeadModel", "GPT2ForCausalLM")
    for asked, auto_class in ASKED.items():
        kind = auto_class.removeprefix("AutoModel") or "Model"
        if class_name.endswith(kind) and "LMHead" not in class_name:
            return asked
    raise UserError(f"{name}: a {class_name or 'model of no known class'} is not served; see docs/serving.md")


def load_served(names: list[str]) -> Served:
    """Load one model of any kind, or several adapters of one base.

    A model is called by the name of its directory, by its Hub id, or as it was given (demo:smollm2).

    Raises:
        UserError: a model that cannot be loaded or is not served, or adapters that cannot share a base.
    """
    asked = asked_of(names[0])
    auto_class = getattr(transformers, ASKED[asked])
    paths = {_label(name): resolve_model(name) for name in names}
    if len(paths) < len(names):
        raise UserError(f"--model_name_or_path {' '.join(names)}: two of them have one name; rename a directory")
    if len(names) == 1:
        model, tokenizer = load_for_inference(auto_class, names[0])
        adapted = model if isinstance(model, PeftModel) else None
        served = Served(asked, paths, _base(model), {_label(names[0]): tokenizer}, adapted)
    else:
        device = torch.accelerator.current_accelerator() or torch.device("cpu")
        paths = {label.replace(".", "_"): path for label, path in paths.items()}  # peft takes no dots
        dtype = torch.float32 if device.type == "cpu" else "auto"
        adapted = load_adapters(auto_class, paths, dtype=dtype).to(device)
        pack_linear_layers(adapted)
        with loading(names[0]):
            tokenizers = {label: AutoTokenizer.from_pretrained(path) for label, path in paths.items()}
        served = Served(asked, paths, _base(adapted), tokenizers, adapted)
    if getattr(served.model.config, "output_router_logits", False):
        served.model.config.output_router_logits = False  # they are for a training loss
    return served


def _label(name: str) -> str:
    path = Path(name).expanduser()
    return path.resolve().name if path.is_dir() else name


def _base(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    return model.get_base_model() if isinstance(model, PeftModel) else model


@torch.no_grad()
def _prefixes(adapted: PeftModel | None, names: list[str]) -> dict[str, torch.Tensor]:
    """What prompt-tuning adapters put before a text; peft's own forward does it for unpadded batches only."""
    found = {}
    for name in names if adapted is not None else ():
        config = adapted.active_peft_config if len(names) == 1 else adapted.peft_config[name]
        if not config.is_prompt_learning:
            continue
        if config.peft_type not in ("PROMPT_TUNING", "P_TUNING") or config.task_type != "CAUSAL_LM":
            raise UserError(f"{name}: a {config.peft_type} adapter is not served; see docs/serving.md")
        if len(names) > 1:
            adapted.set_adapter(name)
        found[name] = adapted.get_prompt(batch_size=1)[0]
    if len(names) > 1 and found:
        adapted.set_adapter(names[0])
    return found
