"""Which lines load a model that was made here, without this package? `{path}` is where it is."""

_PIPELINE = "from transformers import pipeline\n\n"
LOADING = {
    "text-classification": _PIPELINE + 'pipeline("text-classification", model="{path}")("What a film!")',
    "fill-mask": _PIPELINE
    + 'fill = pipeline("fill-mask", model="{path}")\nfill(f"The film was {{fill.tokenizer.mask_token}}.")',
    "text-generation": _PIPELINE + 'pipeline("text-generation", model="{path}")("The city of", max_new_tokens=32)',
    "chat": _PIPELINE + 'chat = pipeline("text-generation", model="{path}")\n'
    'chat([{{"role": "user", "content": "Hello!"}}], max_new_tokens=64)',
    "token-classification": _PIPELINE
    + 'tag = pipeline("token-classification", model="{path}", aggregation_strategy="first")\ntag("Ada met Babbage.")',
    "question-answering": "import torch\nfrom transformers import AutoModelForQuestionAnswering, AutoTokenizer\n\n"
    'tokenizer = AutoTokenizer.from_pretrained("{path}")\n'
    'model = AutoModelForQuestionAnswering.from_pretrained("{path}")\n'
    'question, context = "Who wrote the notes?", "Ada Lovelace wrote the notes."\n'
    'row = tokenizer(question, context, return_offsets_mapping=True, return_tensors="pt")\n'
    'offsets = row.pop("offset_mapping")[0]\n'
    "with torch.no_grad():\n    output = model(**row)\n"
    "first, last = output.start_logits.argmax(), output.end_logits.argmax()\n"
    "context[offsets[first][0] : offsets[last][1]]  # the recipe's ask.py searches long texts and refuses nonsense",
    "multiple-choice": "import torch\nfrom transformers import AutoModelForMultipleChoice, AutoTokenizer\n\n"
    'tokenizer, model = AutoTokenizer.from_pretrained("{path}"), AutoModelForMultipleChoice.from_pretrained("{path}")\n'
    'choices = ["She went home.", "She became a cloud."]\n'
    'rows = tokenizer(["It was late."] * 2, choices, padding=True, return_tensors="pt")\n'
    "with torch.no_grad():\n    logits = model(**{{name: ids[None] for name, ids in rows.items()}}).logits\n"
    "choices[logits.argmax()]",
    "feature-extraction": _PIPELINE + 'pipeline("feature-extraction", model="{path}")("The city of")',
    "sentence-similarity": "from sentence_transformers import SentenceTransformer\n\n"
    'model = SentenceTransformer("{path}")\n'
    'vectors = model.encode(["Where is the Louvre?", "It stands in Paris.", "Foxes hunt at night."])\n'
    "vectors[0] @ vectors[1:].T",
    "text2text-generation": "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n\n"
    'tokenizer, model = AutoTokenizer.from_pretrained("{path}"), AutoModelForSeq2SeqLM.from_pretrained("{path}")\n'
    'ids = tokenizer("The city of <|extra_0|> is the capital.<|eos|>", return_tensors="pt").input_ids\n'
    "tokenizer.decode(model.generate(ids, max_new_tokens=16)[0])",
}
_LABELS = (
    'about = PeftConfig.from_pretrained("{path}").auto_mapping["config"]\n'
    'about["id2label"] = {{int(number): name for number, name in about["id2label"].items()}}\n'
)
# AutoModelFor...from_pretrained("{path}") has no names of classes, no room for new tokens, and not every method of peft
LOADING_ADAPTER = {
    "text-classification": "from peft import AutoPeftModelForSequenceClassification, PeftConfig\n"
    f"from transformers import AutoTokenizer, pipeline\n\n{_LABELS}"
    'model = AutoPeftModelForSequenceClassification.from_pretrained("{path}", **about)\n'
    'tokenizer = AutoTokenizer.from_pretrained("{path}")\n'
    'pipeline("text-classification", model=model, tokenizer=tokenizer)("What a film!")',
    "token-classification": "from peft import AutoPeftModelForTokenClassification, PeftConfig\n"
    f"from transformers import AutoTokenizer, pipeline\n\n{_LABELS}"
    'model = AutoPeftModelForTokenClassification.from_pretrained("{path}", **about)\n'
    'tokenizer = AutoTokenizer.from_pretrained("{path}")\n'
    'tag = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first")\n'
    'tag("Ada met Babbage.")',
    "chat": "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer, pipeline\n\n"
    'model = AutoPeftModelForCausalLM.from_pretrained("{path}")\n'
    'chat = pipeline("text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained("{path}"))\n'
    'chat([{{"role": "user", "content": "Hello!"}}], max_new_tokens=64)',
}
